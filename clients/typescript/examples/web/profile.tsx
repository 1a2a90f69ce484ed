import { useEffect, useState } from "react";
import { ProfileLedgerError, createClient } from "profile-ledger-client";
import type { Answer, OwnProfile } from "profile-ledger-client";

declare function freshToken(refused?: string): Promise<string>; // of your sign-in

const client = createClient({ baseUrl: "", token: freshToken, language: "en", platform: "web", appVersion: "3.1.4" });

export function Profile() {
  const [profile, setProfile] = useState<Answer<OwnProfile>>();
  const [sent, setSent] = useState(0);
  const [sentences, setSentences] = useState<readonly string[]>([]);

  useEffect(() => {
    const leaving = new AbortController();
    void show(client.profile({ signal: leaving.signal }), leaving.signal);
    return () => leaving.abort();
  }, []);

  async function show(call: Promise<Answer<OwnProfile>>, signal?: AbortSignal) {
    try {
      setProfile(await call);
      setSentences([]);
    } catch (error) {
      if (signal?.aborted) return;
      if (!(error instanceof ProfileLedgerError)) throw error;
      if (error.code === "VERSION_MISMATCH") setProfile(await client.profile()); // changed elsewhere: show that
      setSentences(error.errors.length > 0 ? error.errors : [`Please try again (${error.code})`]);
    }
  }

  const rename = (username: string) => show(client.changeUsername(username, { ifMatch: profile?.etag }));
  const upload = (photo: File) =>
    show(client.changePhoto(photo, { onProgress: ({ sent, total }) => setSent(total ? sent / total : 0) }));

  return (
    <form>
      <img src={profile?.data.profilePhoto?.variants["192"]} alt="" />
      <input type="file" accept="image/*" onChange={({ target }) => target.files?.[0] && upload(target.files[0])} />
      <progress value={sent} />
      <input key={profile?.etag} defaultValue={profile?.data.username} onBlur={({ target }) => rename(target.value)} />
      {sentences.map((sentence) => <p key={sentence}>{sentence}</p>)}
    </form>
  );
}
