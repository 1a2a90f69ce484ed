// A photo as a form, and its way to the service where progress can be watched.

/** Bytes of any kind, a `Blob` or `File`, or what React Native calls a file. At most 10 MiB. */
export type Photo = Blob | Uint8Array | ArrayBuffer | { uri: string; name: string; type: string };

/** How far an upload is. It begins anew when the upload is tried again. */
export interface Progress {
  /** Bytes sent, those of the form around the photo counted. */
  sent: number;
  /** Bytes of the whole, where it is known. */
  total: number | undefined;
}

export interface Wire {
  method: string;
  headers: Headers;
  body?: BodyInit | null;
  signal: AbortSignal;
}

export function form(photo: Photo): FormData {
  const form = new FormData();
  // The service knows a photo by its bytes; the name and the type say nothing to it.
  if (photo instanceof ArrayBuffer || ArrayBuffer.isView(photo)) {
    form.append("file", new Blob([photo as BlobPart]), "photo");
  } else if ("uri" in photo) {
    // React Native reads the file itself when it is sent.
    form.append("file", photo as unknown as Blob);
  } else {
    form.append("file", photo, "photo");
  }
  return form;
}

/** Whether this place can say how far an upload is. `fetch` cannot. */
export function canWatch(): boolean {
  return typeof XMLHttpRequest === "function";
}

/** Does what `fetch` does, and says how far it is. */
export function watched(url: string, wire: Wire, onProgress: (progress: Progress) => void): Promise<Response> {
  return new Promise((resolve, reject) => {
    const { method, headers, body, signal } = wire;
    if (signal.aborted) return reject(signal.reason);
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    request.open(method, url);
    headers.forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total, lengthComputable }) =>
      onProgress({ sent: loaded, total: lengthComputable ? total : undefined });
    request.onload = () => {
      try {
        resolve(responseOf(request));
      } catch (error) {
        reject(error); // a status that no response has
      }
    };
    request.onerror = () => reject(new TypeError("The connection failed"));
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal.removeEventListener("abort", stop);
    signal.addEventListener("abort", stop, { once: true });
    request.send(body as XMLHttpRequestBodyInit);
  });
}

function responseOf(request: XMLHttpRequest): Response {
  const { status, statusText, responseText } = request;
  const headers = new Headers();
  for (const line of request.getAllResponseHeaders().split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return new Response(responseText || null, { status, statusText, headers });
}
