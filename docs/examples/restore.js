// An orchestrator's part in Node, without any module: node restore.js SOCKET STATE.json MIGRATION
const net = require("node:net");
const [path, file, migration] = process.argv.slice(2);
const state = JSON.parse(require("node:fs").readFileSync(file, "utf8"));
const target = { kind: "software", name: "sim0" };
const connection = net.connect(path).setEncoding("utf8");

// Each message is JSON and a NUL byte. Replies come in the order of the calls.
async function call(method, parameters) {
  connection.write(JSON.stringify({ method: `io.vdpad.Daemon.${method}`, parameters }) + "\0");
  let message = "";
  for await (const piece of connection.iterator({ destroyOnReturn: false })) {
    message += piece;
    if (message.endsWith("\0")) break;
  }
  const reply = JSON.parse(message.slice(0, -1));
  if (reply.error) throw new Error(`${reply.error}: ${reply.parameters.message}`);
  return reply.parameters;
}

(async () => {
  console.log("compatible:", (await call("Check", { state, target })).compatible);
  console.log("prepared:", (await call("Prepare", { migration, state, target })).operation.state);
  console.log("committed:", (await call("Commit", { migration })).outcome);
  console.log("status:", (await call("Status", { migration })).operation.state);
  connection.end();
})();
