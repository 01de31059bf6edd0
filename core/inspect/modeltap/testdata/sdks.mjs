// Calls a model with an official SDK until it is refused, and prints what happened as JSON. Arguments: the directory with node_modules,
// which SDK, the base URL ("" is the provider's own, with the key in the environment), and "budget" or "cut". Which may be several, with
// commas: then each line of standard input is one to go on with.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [dir, which, base, mode] = process.argv.slice(2);
const require = createRequire(dir + "/");

async function drain(stream) {
  let n = 0;
  for await (const _ of stream) n++;
  return n;
}

const sdks = {
  anthropic() {
    const Anthropic = require("@anthropic-ai/sdk").default;
    const client = new Anthropic(base ? { apiKey: "placeholder", baseURL: base } : {});
    const ask = { model: "claude-sonnet-4-5", max_tokens: 50, messages: [{ role: "user", content: "hi" }] };
    return {
      plain: () => client.messages.create(ask),
      stream: async () => drain(await client.messages.create({ ...ask, stream: true })),
    };
  },
  openai() {
    const OpenAI = require("openai").default;
    const client = new OpenAI(base ? { apiKey: "placeholder", baseURL: base + "/v1" } : {});
    const ask = { model: "gpt-5", messages: [{ role: "user", content: "hi" }] };
    return {
      plain: () => client.chat.completions.create(ask),
      stream: async () => drain(await client.chat.completions.create({ ...ask, stream: true })),
    };
  },
  responses() {
    const OpenAI = require("openai").default;
    const client = new OpenAI(base ? { apiKey: "placeholder", baseURL: base + "/v1" } : {});
    const ask = { model: "gpt-5", input: "hi" };
    return {
      plain: () => client.responses.create(ask),
      stream: async () => drain(await client.responses.create({ ...ask, stream: true })),
    };
  },
  google() {
    const { GoogleGenAI } = require("@google/genai");
    const client = new GoogleGenAI(base ? { apiKey: "placeholder", httpOptions: { baseUrl: base } } : { apiKey: process.env.GEMINI_API_KEY });
    const ask = { model: "gemini-2.5-pro", contents: "hi" };
    return {
      plain: () => client.models.generateContent(ask),
      stream: async () => drain(await client.models.generateContentStream(ask)),
    };
  },
};

async function run(sdk) {
  const out = { ok: 0, status: 0, message: "" };
  try {
    for (const call of mode === "cut" ? [sdk.stream] : [sdk.plain, sdk.stream, sdk.plain, sdk.stream]) {
      await call();
      out.ok++;
    }
  } catch (err) {
    out.status = err.status ?? 0;
    out.message = String(err.message ?? err);
  }
  console.log(JSON.stringify(out));
}

const loaded = Object.fromEntries(which.split(",").map((name) => [name, sdks[name]()]));
if (which in loaded) await run(loaded[which]);
else for await (const line of createInterface({ input: process.stdin })) await run(loaded[line]);
