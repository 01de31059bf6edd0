// Uses the tools of the owner's servers in a guest, with the reference SDK for Node: gateway.mjs SDK TOOL... where SDK has the SDK in node_modules.
// Each tool gets a text; what they answer with is printed.
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [dir, ...tools] = process.argv.slice(2);
const require = createRequire(path.join(dir, "x.js"));
const load = (name) => import(pathToFileURL(require.resolve("@modelcontextprotocol/sdk/" + name)));
const { Client } = await load("client/index.js");
const { StdioClientTransport } = await load("client/stdio.js");

const client = new Client({ name: "node", version: "1" }, { capabilities: {} });
await client.connect(new StdioClientTransport({ command: "capsem-mcp-server" }));
const listed = (await client.listTools()).tools.map((t) => t.name);
for (const name of tools) {
  if (!listed.includes(name)) throw new Error(name + " is not in " + listed);
  const res = await client.callTool({ name, arguments: { text: "hello from node" } }, undefined, { timeout: 120000 });
  console.log(name, res.isError ? "failed" : "says", res.content[0].text);
}
await client.close();
