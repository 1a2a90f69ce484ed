// What stands between client and service: it answers as it is told to, and otherwise hands on.

import { createServer, request } from "node:http";
import type { IncomingHttpHeaders, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Asked {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** When it came, in milliseconds. */
  at: number;
}

/** One answer. Without an end, the client waits. */
export type Reply = (response: ServerResponse, asked: Asked) => void;

export class Between {
  readonly asked: Asked[] = [];
  /** What comes next; when nothing is left, requests are handed on, and without a service succeed. */
  replies: Reply[] = [];
  /** What is there beside the service, by path; of the same origin, as browsers count. */
  readonly files = new Map<string, Reply>();

  private constructor(private readonly server: Server, private readonly service: string | undefined) {}

  static async start(service?: string): Promise<Between> {
    const server = createServer(async (incoming, response) => {
      const chunks: Buffer[] = [];
      try {
        for await (const chunk of incoming) chunks.push(chunk as Buffer);
      } catch {
        return; // the client went away
      }
      const { method = "", url: path = "", headers } = incoming;
      const file = between.files.get(path);
      if (file) return file(response, { method, path, headers, body: Buffer.alloc(0), at: Date.now() });
      const asked = { method, path, headers, body: Buffer.concat(chunks), at: Date.now() };
      between.asked.push(asked);
      const reply = between.replies.shift() ?? (service === undefined ? success() : between.handOn);
      reply(response, asked);
    });
    const between = new Between(server, service);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return between;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** The values that a header had, request by request. */
  sent(header: string): (string | string[] | undefined)[] {
    return this.asked.map(({ headers }) => headers[header.toLowerCase()]);
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Asks the service and gives its answer back. */
  readonly handOn: Reply = (response, { method, path, headers, body }) => {
    const onward = request(this.service + path, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    onward.end(body);
  };

  /** Lets the service do it and loses the answer. */
  readonly loseAnswer: Reply = (response, { method, path, headers, body }) => {
    const onward = request(this.service + path, { method, headers }, (answer) => {
      answer.resume().on("end", () => response.destroy());
    });
    onward.end(body);
  };
}

export function status(status: number, headers: Record<string, string> = {}, body = ""): Reply {
  return (response) => response.writeHead(status, headers).end(body);
}

export function json(code: number, body: unknown, headers: Record<string, string> = {}): Reply {
  return status(code, { "Content-Type": "application/json", ...headers }, JSON.stringify(body));
}

export function envelope(code: number, errors: string[]) {
  return { isSuccess: false, statusCode: code, data: null, errors, timestamp: "2026-05-22T16:11:26.808Z" };
}

export function success(data: unknown = {}): Reply {
  return json(200, { isSuccess: true, statusCode: 200, data, errors: [], timestamp: "2026-05-22T16:11:26.808Z" });
}

/** The connection ends before an answer. */
export const drop: Reply = (response) => response.destroy();

/** The answer ends before it is whole. */
export const breakOff: Reply = (response) => {
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": "1000" });
  response.write('{"isSuccess": true, "data": {', () => response.destroy());
};

/** Nothing comes. */
export const silence: Reply = () => undefined;

export const gatewayPage = status(502, { "Content-Type": "text/html" }, "<html><body><h1>502 Bad Gateway</h1></body></html>");
