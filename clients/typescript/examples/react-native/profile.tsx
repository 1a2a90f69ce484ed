import { useState } from "react";
import { Alert, Button, Image, Platform, Text, View } from "react-native";
import { ProfileLedgerError, createClient } from "profile-ledger-client";
import type { OwnProfile } from "profile-ledger-client";

declare function freshToken(refused?: string): Promise<string>; // of your sign-in
declare function pickPhoto(): Promise<{ uri: string; name: string; type: string }>; // of your image picker

const client = createClient({
  baseUrl: "https://api.example.com",
  token: freshToken,
  language: "tr",
  timezone: "UTC+03:00",
  platform: Platform.OS === "ios" ? "mobile_ios" : "mobile_android",
});

export function Photo() {
  const [profile, setProfile] = useState<OwnProfile>();
  const [percent, setPercent] = useState(0);

  async function change() {
    try {
      const onProgress = ({ sent, total }: { sent: number; total: number | undefined }) =>
        setPercent(total ? Math.round((100 * sent) / total) : 0);
      const { data } = await client.changePhoto(await pickPhoto(), { onProgress });
      setProfile(data);
    } catch (error) {
      if (!(error instanceof ProfileLedgerError)) throw error;
      Alert.alert(error.code, error.errors.join("\n"));
    }
  }

  return (
    <View>
      <Image source={{ uri: profile?.profilePhoto?.url ?? "" }} />
      <Text>{percent} %</Text>
      <Button title="Change the photo" onPress={change} />
    </View>
  );
}
