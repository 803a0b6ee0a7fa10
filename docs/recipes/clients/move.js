// An orchestrator's part of a move, in Node (18 and later), with its standard library:
//
//     node move.js SOCKET MIGRATION STATE.json TARGET.json COMMITTER [SECONDS]
//
// Checks, prepares for the VMM that will commit, and watches until it has; cancels where it does not
// within so many seconds. README.md has the exit codes. Vdpad, to the line below, is what to copy.
"use strict";
const net = require("node:net");
const { readFileSync } = require("node:fs");

class Refused extends Error {
  // kind: the error's name, "Busy"; data: what came with it, beside the message.
  constructor(name, { message, ...data }) {
    super(`${name}: ${message}`);
    this.kind = name.split(".").pop();
    this.data = data;
  }
}

class Vdpad {
  #socket;
  #replies;

  constructor(path) {
    this.#socket = net.connect(path).setEncoding("utf8");
    this.#replies = this.#read();
  }

  // Varlink: each message is JSON and a NUL byte; replies come in the order of the calls.
  async *#read() {
    let rest = "";
    for await (const piece of this.#socket) {
      const messages = (rest + piece).split("\0");
      rest = messages.pop();
      for (const each of messages) yield JSON.parse(each);
    }
  }

  async #reply() {
    const { value, done } = await this.#replies.next();
    if (done) throw new Error("the connection ended before the reply");
    if (value.error) throw new Refused(value.error, value.parameters);
    return value;
  }

  #send(method, parameters, more) {
    this.#socket.write(JSON.stringify({ method: `io.vdpad.Daemon.${method}`, parameters, more }) + "\0");
  }

  // One at a time on a connection. Rejects where no reply comes within so many milliseconds.
  async call(method, parameters, milliseconds = 30000) {
    const timer = this.#endAfter(milliseconds, `no reply to ${method} within ${milliseconds} ms`);
    try {
      this.#send(method, parameters);
      return (await this.#reply()).parameters;
    } finally {
      clearTimeout(timer);
    }
  }

  // All operations, and then each that changes. The connection is this one's alone from then on.
  async *watch(milliseconds) {
    const timer = this.#endAfter(milliseconds, `not within ${milliseconds} ms`);
    try {
      this.#send("Watch", {}, true);
      for (;;) yield (await this.#reply()).parameters.operation;
    } finally {
      clearTimeout(timer);
    }
  }

  #endAfter(milliseconds, why) {
    return setTimeout(() => this.#socket.destroy(new Late(why)), milliseconds);
  }

  close() {
    this.#socket.destroy();
  }
}

class Late extends Error {}

// ------------------------------------------------------------------------------------------------

const ENDED = ["restored", "failed", "cancelled"];

// Whether the operation has ended within so many seconds.
async function ends(path, migration, seconds) {
  const watching = new Vdpad(path);
  try {
    for await (const operation of watching.watch(seconds * 1000)) {
      if (operation.migration === migration && ENDED.includes(operation.state)) return true;
    }
  } catch (error) {
    if (!(error instanceof Late)) throw error;
    return false;
  } finally {
    watching.close();
  }
}

// An exit code, by how the operation has ended.
function told({ state, report }) {
  console.log(`${state}: ${report ? report.outcome : "nobody committed"}`);
  for (const each of report?.rejected ?? []) console.error(`refused: ${each.command} ${each.arguments}`);
  return { restored: 0, failed: 4, cancelled: 5 }[state] ?? 1;
}

async function move(path, migration, state, target, committer, seconds) {
  const vdpad = new Vdpad(path);
  try {
    const fits = await vdpad.call("Check", { state, target });
    for (const each of fits.problems) console.error(`${each.path}: ${each.message}`);
    if (!fits.compatible) return 3;
    const prepared = await vdpad.call("Prepare", { migration, state, target, committer });
    console.log(`prepared: ${prepared.operation.commands} commands`);
    // Whoever commits in the last moment has committed: an operation that has ended stays as it is.
    const method = (await ends(path, migration, seconds)) ? "Status" : "Cancel";
    return told((await vdpad.call(method, { migration })).operation);
  } finally {
    vdpad.close();
  }
}

function read(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new Usage(`${file}: ${error.message}`);
  }
}

// A number that stands on the command line: one that is none would be null in JSON, and left out; a
// timer of more than MOST milliseconds would end at once.
const MOST = 2 ** 31 - 1;

function number(name, text, most) {
  if (!/^\d+$/.test(text) || Number(text) > most) {
    throw new Usage(`expected a number for ${name}, 0 to ${most}, got ${text}`);
  }
  return Number(text);
}

class Usage extends Error {}

async function main(argv) {
  try {
    if (argv.length < 5 || argv.length > 6) {
      throw new Usage("usage: move.js SOCKET MIGRATION STATE.json TARGET.json COMMITTER [SECONDS]");
    }
    const [path, migration, state, target, committer, seconds = "60"] = argv;
    const numbers = [
      number("COMMITTER", committer, 2 ** 32 - 1),
      number("SECONDS", seconds, Math.floor(MOST / 1000)),
    ];
    return await move(path, migration, read(state), read(target), ...numbers);
  } catch (error) {
    console.error(error.message);
    if (error instanceof Usage) return 2;
    return error.syscall === "connect" ? 7 : 1;
  }
}

main(process.argv.slice(2)).then((code) => (process.exitCode = code));
