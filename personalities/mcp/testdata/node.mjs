// Uses capsem over MCP with the reference SDK for Node: node node.mjs DIR COMMAND ARG... where DIR has the SDK in node_modules.
// What it does is told by the environment: SHELL_LINE is run in the VM and must print EXPECTED; with RECORD the record is asked too.
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [dir, command, ...args] = process.argv.slice(2);
const require = createRequire(path.join(dir, "x.js"));
const load = (name) => import(pathToFileURL(require.resolve("@modelcontextprotocol/sdk/" + name)));
const { Client } = await load("client/index.js");
const { StdioClientTransport } = await load("client/stdio.js");
const { ResourceUpdatedNotificationSchema } = await load("types.js");

const client = new Client({ name: "node", version: "1" }, { capabilities: {} });
const transport = new StdioClientTransport({ command, args, env: process.env });
const updated = new Promise((done) => client.setNotificationHandler(ResourceUpdatedNotificationSchema, (n) => done(n.params.uri)));
await client.connect(transport);

const call = async (name, args = {}, options = {}) => {
  const res = await client.callTool({ name, arguments: args }, undefined, { timeout: 120000, ...options });
  if (res.isError) throw new Error(name + ": " + JSON.stringify(res.content));
  return res.structuredContent; // the SDK has held it against the tool's schema
};
const check = (ok, what) => {
  if (!ok) throw new Error("not so: " + what);
};

const { tools } = await client.listTools();
let told = 0;
const vm = await call("capsem_create", { name: "node" }, { onprogress: () => told++ });
check(vm.status === "Running", "created: " + JSON.stringify(vm));
// This SDK drops progress that it reads together with the answer, so a quick call may tell nothing.
for (let i = 0; told === 0 && i < 100; i++) await call("capsem_resume", { name: "node" }, { onprogress: () => told++ });
check(told > 0, "progress");
await call("capsem_write_file", { id: "node", path: "hello.txt", content: "from node\n" });
const ran = await call("capsem_exec", { id: "node", command: process.env.SHELL_LINE });
check(ran.stdout === process.env.EXPECTED && ran.exit_code === 0, "ran: " + JSON.stringify(ran));
const uri = "capsem://vm/node/file/hello.txt";
const read = await client.readResource({ uri });
check(read.contents[0].text === "from node\n", "the file as a resource");
await client.subscribeResource({ uri });
await call("capsem_write_file", { id: "node", path: "hello.txt", content: "something longer\n" });
check((await updated) === uri, "told of the change");
await client.unsubscribeResource({ uri });
const image = await call("capsem_fork", { id: "node", name: "node-image" });
check(image.name === "node-image", "forked");
if (process.env.RECORD) {
  const rows = await call("capsem_inspect", { id: "node", sql: "SELECT command, exit_code FROM exec_events" });
  check(rows.rows.some((r) => r[0].includes("hello.txt") && r[1] === 0), "the command is on record: " + JSON.stringify(rows));
}
const { resources } = await client.listResources();
check(resources.some((r) => r.uri === "capsem://vm/node/transcript"), "resources");
const { resourceTemplates } = await client.listResourceTemplates();
const { prompts } = await client.listPrompts();
const prompt = await client.getPrompt({ name: "review_vm", arguments: { vm: "node" } });
check(prompt.messages.length === 1, "a prompt");
const completion = await client.complete({ ref: { type: "ref/prompt", name: "review_vm" }, argument: { name: "vm", value: "no" } });
check(completion.completion.values.includes("node"), "a completion");

const stop = new AbortController();
const hung = client.callTool({ name: "capsem_exec", arguments: { id: "node", command: process.env.HANG, timeout: 0 } }, undefined, { signal: stop.signal, timeout: 120000 });
setTimeout(() => stop.abort("enough"), 300);
await hung.then(() => check(false, "cancelled"), () => {});
const failed = await client.callTool({ name: "capsem_info", arguments: { id: "none" } });
check(failed.isError && failed._meta["capsem/code"] === "not_found", "an error");
let unknown = 0;
await client.request({ method: "no/such" }, { parse: (x) => x }).catch((e) => (unknown = e.code));
check(unknown === -32601, "an unknown method: " + unknown);

await call("capsem_delete", { id: "node" });
await call("capsem_image_delete", { name: "node-image" });
await client.close();
console.log(JSON.stringify({ tools: tools.length, templates: resourceTemplates.length, prompts: prompts.length, told, server: client.getServerVersion()?.name ?? "" }));
