// What people do with the console for each other and for programs, in a real browser. Started by tests/console.rs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { giveSignIn, settings, walk, withBrowser } from "./browser.mjs";

const platform = process.env.CONSOLE_PLATFORM;
const heroku = process.env.CONSOLE_HEROKU;
// What programs keep and write is none of the developer's.
const home = await mkdtemp(join(tmpdir(), "console-people-"));
const started = [];

/** A program, and what it prints. */
class Program {
  constructor(command, args, env = {}) {
    this.text = "";
    this.waiting = [];
    this.child = spawn(command, args, { env: { ...process.env, HOME: home, BROWSER: "true", ...env } });
    started.push(this.child);
    this.ended = new Promise((resolve) => this.child.on("close", resolve));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.on("data", (data) => {
        this.text += data;
        this.waiting.forEach((look) => look());
      });
    }
  }

  /** On a terminal of its own. */
  static onTerminal(command, env) {
    return new Program("script", ["--quiet", "--return", "--command", command, "/dev/null"], env);
  }

  /** Waits until it has printed this. */
  says(pattern) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = pattern.exec(this.text);
        if (found) resolve(found);
      };
      this.waiting.push(look);
      this.ended.then(() => reject(new Error(`it ended and never said ${pattern}:\n${this.text}`)));
      look();
    });
  }
}

const steps = ({ page }) => {
  const button = (name) => page.getByRole("button", { name, exact: true });
  const notice = (text) => page.locator(".notice").getByText(text).waitFor();
  const asks = async (program) => (await program.says(/(http:\S+\/console\/login\/\w+)\s/))[1];

  return {
    async "`platform login` on a terminal is let in by whoever signs in on the page that it names"() {
      const program = Program.onTerminal(`${platform} login`);
      const address = await asks(program);
      const [, code] = await program.says(/code (\w{4}-\w{4})\./);
      await page.goto(address);
      await giveSignIn(page);
      await page.waitForURL(address);
      await page.locator(".facts").getByText(code, { exact: true }).waitFor();
      await page.locator(".facts").getByText("as you do").waitFor();
      await button("Let it in").click();
      await notice(`The program is logged in as ${settings.email}`);
      assert.equal(await program.ended, 0, program.text);
      assert.match(program.text, new RegExp(`Logged in to \\S+ as ${settings.email}`));
      const whoami = new Program(platform, ["whoami"]);
      await whoami.ended;
      assert.equal(whoami.text.trim(), settings.email);
      await page.goto(address);
      await page.getByRole("heading", { name: "There is nothing here" }).waitFor();
    },

    async "who did not start a program turns it away"() {
      const program = new Program(platform, ["login", "--browser"]);
      await page.goto(await asks(program));
      await button("Turn it away").click();
      await notice("The program was turned away");
      assert.notEqual(await program.ended, 0);
      assert.match(program.text, /Nobody let this program in/);
    },

    async "`heroku login` works as it is"() {
      const program = Program.onTerminal(`${heroku} login`, {
        HEROKU_HOST: settings.url,
        HEROKU_LOGIN_HOST: settings.url,
        HEROKU_PARTICLEBOARD_URL: settings.url,
        HEROKU_NETRC_WRITE: "true",
        HEROKU_DISABLE_AUTOUPDATE: "true",
        HEROKU_SKIP_NEW_VERSION_CHECK: "true",
        DISABLE_TELEMETRY: "true",
      });
      await program.says(/Press any key/);
      program.child.stdin.write("y");
      await page.goto(await asks(program));
      await page.locator(".facts").getByText("Heroku CLI login from").waitFor();
      await button("Let it in").click();
      await program.says(new RegExp(`Logged in as .*${settings.email}`));
      assert.equal(await program.ended, 0, program.text);
    },
  };
};

try {
  await withBrowser(async (browser) => {
    const context = await browser.newContext();
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    await walk(page, steps({ browser, context, page }));
  });
} finally {
  started.forEach((child) => child.kill());
  await rm(home, { recursive: true, force: true });
}
