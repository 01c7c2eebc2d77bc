// What people do with the console for each other and for programs, in a real browser. Started by tests/console.rs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { giveSignIn, settings, signIn, walk, withBrowser } from "./browser.mjs";

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

/** What a phone that was shown a secret says (RFC 6238), now or so many steps of half a minute later. */
function phone(secret, later = 0) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret.replaceAll(" ", "")].map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, "0"));
  const key = Buffer.from(bits.join("").match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + later));
  const digest = createHmac("sha1", key).update(step).digest();
  const number = digest.readUInt32BE(digest.at(-1) & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

/** Asks the API with a token. */
async function ask(token, path, method = "GET") {
  const headers = { authorization: `Bearer ${token}`, accept: "application/vnd.heroku+json; version=3" };
  return (await fetch(`${settings.url}${path}`, { method, headers })).status;
}

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti grace@laptop";
const ADA = { email: "ada.invited@localhost", password: "difference engine" };
const APP = "people-app";
const TEAM = "people-team";

const steps = (browser, page) => {
  const button = (name) => page.getByRole("button", { name, exact: true });
  const notice = (text) => page.locator(".notice").getByText(text).waitFor();
  const go = (path) => page.goto(`${settings.url}/console/${path}`);
  const row = (text, on = page) => on.locator(".rows > li").filter({ hasText: text });
  const shown = (on = page) => on.locator(".fresh pre").innerText();
  // Somebody else, at their own browser.
  let ada;
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
      await notice("The program is logged in");
      await program.says(new RegExp(`Logged in as .*${settings.email}`));
      assert.equal(await program.ended, 0, program.text);
    },

    async "a second factor is set up with a phone, and recovery codes are shown once"() {
      await go("account");
      await button("Set up").click();
      const picture = page.getByAltText("QR code of the secret");
      await picture.waitFor();
      assert.ok(await picture.evaluate((image) => image.decode().then(() => image.naturalWidth > 100)), "it is seen");
      const secret = await page.locator(".enrol pre").innerText();
      await page.getByLabel("The code that it shows").fill("000000");
      await button("Turn on").click();
      await notice("That code is not good");
      await page.getByLabel("The code that it shows").fill(phone(secret));
      await button("Turn on").click();
      await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
      const recovery = (await page.locator("#two-factor pre").innerText()).split("\n");
      assert.equal(recovery.length, 10);
      await page.getByRole("link", { name: "I have kept them" }).click();
      await page.getByText("10 recovery codes left").waitFor();
      assert.ok(!(await page.content()).includes(recovery[0]), "shown once");

      for (const [what, code] of [["of the phone", phone(secret, 1)], ["for recovery", recovery[0]]]) {
        const other = await (await browser.newContext()).newPage();
        await other.goto(`${settings.url}/console/apps?q=there`);
        await giveSignIn(other);
        await other.getByLabel("Code").fill("123456");
        await other.getByRole("button", { name: "Sign in" }).click();
        await other.locator(".notice").getByText("That code is not good").waitFor();
        await other.getByLabel("Code").fill(code);
        await other.getByRole("button", { name: "Sign in" }).click();
        await other.waitForURL("**/console/apps?q=there");
        await other.context().close();
        console.log(`   by a code ${what}`);
      }

      await go("account");
      await page.getByText("9 recovery codes left").waitFor();
      await page.getByText("Turn it off").click();
      await page.getByLabel("Code, of the phone or for recovery").fill(recovery[0]);
      await button("Turn off").click();
      await notice("That code is not good");
      await page.getByText("Turn it off").click();
      await page.getByLabel("Code, of the phone or for recovery").fill(recovery[1]);
      await button("Turn off").click();
      await notice("Two-factor authentication is off");
    },

    async "another password signs other browsers out"() {
      const other = await (await browser.newContext()).newPage();
      await signIn(other);
      await go("account");
      await row("This browser").waitFor();
      const change = async (current, next) => {
        await page.getByLabel("Present password").fill(current);
        await page.getByLabel("New password").fill(next);
        await button("Change password").click();
      };
      await change("wrong password", "another password");
      await notice("That is not your password");
      await change(settings.password, "another password");
      await notice("Your password is changed");
      assert.equal(await row("Sign out").count(), 0, "this browser is the only one");
      await other.reload();
      await other.getByRole("heading", { name: "Sign in" }).waitFor();
      await other.context().close();
      await go("account");
      await change("another password", settings.password);
      await notice("Your password is changed");
    },

    async "an SSH key is added and removed, and a private one refused"() {
      await go("account/keys");
      await page.getByLabel("Public key").fill("-----BEGIN OPENSSH PRIVATE KEY-----");
      await button("Add key").click();
      await notice("private key");
      await page.getByLabel("Public key").fill(KEY);
      await button("Add key").click();
      await notice("grace@laptop was added");
      await button("Remove grace@laptop").click();
      await notice("grace@laptop was removed");
      assert.equal(await row("grace@laptop").count(), 0);
    },

    async "a token is shown once, is good for what it says, and ends"() {
      await go("account/tokens");
      await page.getByLabel("What is it for?").fill("nightly report");
      await page.getByLabel("What is it good for?").selectOption("read");
      await button("Make token").click();
      const token = await shown();
      assert.equal(await ask(token, "/apps"), 200);
      assert.equal(await ask(token, "/apps", "POST"), 403, "it only reads");
      await row("nightly report").getByText("read", { exact: true }).waitFor();
      await go("account/tokens");
      assert.ok(!(await page.content()).includes(token), "shown once");
      await button("Revoke nightly report").click();
      await notice("nightly report is no longer good");
      assert.equal(await ask(token, "/apps"), 401);
    },

    async "whoever is invited to a team chooses a password and is in it"() {
      await go("teams");
      await page.getByLabel("Name").fill(TEAM);
      await button("Make team").click();
      await page.getByRole("heading", { name: TEAM, exact: true }).waitFor();
      await page.getByLabel("E-mail address").fill(ADA.email);
      await page.getByRole("combobox", { name: "Role", exact: true }).selectOption("operate");
      await button("Add to the team").click();
      const link = await shown();
      await row(ADA.email).getByText("invited as operate").waitFor();

      ada = await (await browser.newContext()).newPage();
      await ada.goto(link);
      await ada.getByText(`${settings.email} invited ${ADA.email} to the team ${TEAM}`).waitFor();
      await ada.getByLabel("Password").fill("short");
      await ada.locator("form").evaluate((form) => (form.noValidate = true));
      await ada.getByRole("button", { name: "Create my account" }).click();
      await ada.locator(".notice.bad").waitFor();
      await ada.getByLabel("Password").fill(ADA.password);
      await ada.getByRole("button", { name: "Create my account" }).click();
      await ada.waitForURL("**/console/apps");
      await ada.goto(`${settings.url}/console/teams`);
      await row(TEAM, ada).getByText("operate").waitFor();
      await ada.goto(link);
      await ada.getByRole("heading", { name: "There is nothing here" }).waitFor();
    },

    async "members get other roles, and only admins give them"() {
      await go(`teams/${TEAM}`);
      await page.getByLabel(`Role of ${ADA.email}`).selectOption("view");
      await notice(`${ADA.email} has the role view now`);
      await page.getByLabel(`Role of ${settings.email}`).selectOption("view");
      await notice("would have no admin");
      await ada.goto(`${settings.url}/console/teams/${TEAM}`);
      await ada.getByText("Your role is view.").waitFor();
      assert.equal(await ada.getByRole("button", { name: "Add to the team" }).count(), 0);
      ada.once("dialog", (dialog) => dialog.accept());
      await ada.getByRole("button", { name: `Leave ${TEAM}` }).click();
      await ada.locator(".notice").getByText(`You have left the team ${TEAM}`).waitFor();
      await ada.goto(`${settings.url}/console/teams/${TEAM}`);
      await ada.getByRole("heading", { name: "There is nothing here" }).waitFor();
    },

    async "access to an app is given, changed and taken"() {
      await go("new");
      await page.getByLabel("Name").fill(APP);
      await button("Create app").click();
      await page.locator(".tabs").getByText("Access", { exact: true }).click();
      await page.getByLabel("E-mail address").fill("nobody@localhost");
      await button("Let in").click();
      assert.match(await shown(), /\/console\/invitations\/\w+$/);
      await row("nobody@localhost").getByText("invited as operate").waitFor();
      await button("Remove nobody@localhost").click();
      await notice("nobody@localhost is out");
      await page.getByLabel("E-mail address").fill(ADA.email);
      await page.getByRole("combobox", { name: "Role", exact: true }).selectOption("view");
      await button("Let in").click();
      await notice(`${ADA.email} has the role view now`);

      const app = `${settings.url}/console/apps/${APP}`;
      await ada.goto(app);
      await ada.getByRole("heading", { name: APP, exact: true }).waitFor();
      const tab = ada.locator(".tabs").getByText("Config", { exact: true });
      assert.equal(await tab.count(), 0, "what one may not see is not offered");
      assert.equal((await ada.goto(`${app}/config`)).status(), 403);
      await ada.goto(`${app}/settings`);
      assert.equal(await ada.getByRole("button", { name: `Delete ${APP}` }).count(), 0);
      await ada.goto(`${app}/access`);
      assert.equal(await ada.getByRole("button", { name: "Let in" }).count(), 0);

      await page.getByLabel(`Role of ${ADA.email}`).selectOption("operate");
      await notice(`${ADA.email} has the role operate now`);
      await ada.goto(app);
      await tab.click();
      await ada.getByRole("button", { name: "Save and release" }).waitFor();

      await page.getByText("Make a deploy token").click();
      await page.getByLabel("What is it for?").fill("CI");
      await button("Make token").click();
      const token = await shown();
      assert.equal(await ask(token, `/apps/${APP}`), 200);
      assert.equal(await ask(token, `/apps/${APP}`, "DELETE"), 403, "it deploys");
      assert.equal(await ask(token, "/account/keys"), 403, "and nothing else");
      await button("Revoke CI").click();
      await notice("CI is no longer good");

      await button(`Remove ${ADA.email}`).click();
      await notice(`${ADA.email} is out`);
      assert.equal((await ada.goto(app)).status(), 404);
    },

    async "a config var can be for builds alone, and its history has no values"() {
      await go(`apps/${APP}/config`);
      await page.getByLabel("Name").fill("NPM_TOKEN");
      await page.getByRole("textbox", { name: "Value" }).fill("npm-secret");
      await page.getByRole("combobox", { name: "Given" }).selectOption("build");
      await button("Save and release").click();
      await notice("this is v2");
      await row("NPM_TOKEN").getByText("build only").waitFor();
      await row("NPM_TOKEN added").getByText(settings.email).waitFor();
      assert.ok(!(await page.content()).includes("npm-secret"));
      await page.getByLabel("Edit NPM_TOKEN").click();
      const given = page.getByRole("combobox", { name: "Given" });
      await page.getByRole("heading", { name: "Edit NPM_TOKEN" }).waitFor();
      assert.equal(await given.inputValue(), "build");
      await given.selectOption("");
      await button("Save and release").click();
      await row("NPM_TOKEN changed").waitFor();
      assert.equal(await page.getByText("build only").count(), 0);
    },

    async "every page fits on a small screen"() {
      await page.setViewportSize({ width: 360, height: 640 });
      const own = ["account", "account/keys", "account/tokens", "account/audit", "teams", `teams/${TEAM}`];
      for (const path of [...own, ...["access", "audit", "config"].map((tab) => `apps/${APP}/${tab}`)]) {
        await go(path);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(wide, 0, `${path} is too wide`);
      }
      await page.setViewportSize({ width: 1200, height: 800 });
    },

    async "who did what stands in the audit log"() {
      await go(`apps/${APP}/audit`);
      await row(`destroy collaborator: ${ADA.email}`).getByText(settings.email).waitFor();
      await row(`create app: ${APP}`).getByText("session").waitFor();
      await go("account/audit");
      await row(`create team: ${TEAM}`).getByText("127.0.0.1").waitFor();
    },

    async "an account ends with its password, and not while something would be nobody's"() {
      const end = async (on, who) => {
        await on.goto(`${settings.url}/console/account`);
        await on.getByLabel("Password", { exact: true }).fill(who.password);
        await on.getByLabel("Type").fill(who.email);
        await on.getByRole("button", { name: "Delete my account" }).click();
      };
      await end(page, settings);
      await notice(`${settings.email} owns apps: ${APP}`);
      await end(ada, ADA);
      await ada.getByRole("heading", { name: "Sign in" }).waitFor();
      await giveSignIn(ada, ADA);
      await ada.locator(".notice").getByText("do not go together").waitFor();
    },
  };
};

try {
  await withBrowser(async (browser) => {
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    // Only the questions that the console asks.
    page.on("dialog", (dialog) => {
      assert.match(dialog.message(), /^(Remove|Revoke) /);
      dialog.accept();
    });
    await walk(page, steps(browser, page));
  });
} finally {
  started.forEach((child) => child.kill());
  await rm(home, { recursive: true, force: true });
}
