// What people do with the console, in a real browser, against a platform that really runs. Started by tests/console.rs.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import http from "node:http";
import { promisify } from "node:util";
import { settings, signIn, walk, withBrowser } from "./browser.mjs";

const run = promisify(execFile);
const app = process.env.CONSOLE_APP;
const repository = process.env.CONSOLE_REPOSITORY;
const HOSTILE = "<img/src=x/onerror=alert(1)>";

/** What a visitor of the app gets. */
function visit(path, name = app) {
  const url = new URL(settings.url);
  const options = { host: "127.0.0.1", port: url.port, path, headers: { host: `${name}.localhost` } };
  return new Promise((resolve, reject) => {
    const request = http.get(options, (response) => {
      let body = "";
      response.on("data", (chunk) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode, body }));
    });
    request.on("error", reject);
  });
}

/** Waits for what comes by itself. The limit only ends a test that has failed. */
async function until(what, holds) {
  const limit = Date.now() + 120_000;
  while (!(await holds())) {
    assert.ok(Date.now() < limit, `${what}: not within two minutes`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const push = () => run("git", ["-C", repository, "push", "platform", "main"]);

await withBrowser(async (browser) => {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  // Only the questions that the console asks; a script of somebody else's would ask others.
  page.on("dialog", (dialog) => {
    assert.match(dialog.message(), /^(Remove|Detach) /);
    dialog.accept();
  });
  const go = (path) => page.goto(`${settings.url}/console/${path}`);
  const button = (name) => page.getByRole("button", { name, exact: true });
  const link = (name) => page.getByRole("link", { name, exact: true });
  const notice = (text) => page.locator(".notice").getByText(text).waitFor();
  const tab = async (name) => {
    await page.locator(".tabs").getByText(name, { exact: true }).click();
    await page.locator(".tabs [aria-current]").getByText(name, { exact: true }).waitFor();
  };

  const steps = {
    async "a wrong password lets nobody in, and a page leads back after the right one"() {
      await go(`apps?q=${app}`);
      await page.getByLabel("E-mail address").fill(settings.email);
      await page.getByLabel("Password").fill("wrong password");
      await button("Sign in").click();
      await notice("do not go together");
      // By keyboard alone.
      await page.getByLabel("Password").focus();
      await page.keyboard.type(settings.password);
      await page.keyboard.press("Enter");
      await page.waitForURL(`**/console/apps?q=${app}`);
      const session = (await context.cookies()).find((cookie) => cookie.name === "platform_session");
      assert.ok(session.httpOnly && session.sameSite === "Lax");
    },

    async "an app is made, and one with HTML for a name is not"() {
      await go("new");
      await page.locator("form.card").evaluate((form) => (form.noValidate = true));
      await page.getByLabel("Name").fill(HOSTILE);
      await button("Create app").click();
      await page.locator(".notice.bad").waitFor();
      assert.equal(await page.getByLabel("Name").inputValue(), HOSTILE);
      assert.equal(await page.locator("main img").count(), 0);
      await page.getByLabel("Name").fill(app);
      await button("Create app").click();
      await page.getByRole("heading", { name: "Push your code" }).waitFor();
      await page.getByText(`git remote add platform ${settings.url}/${app}.git`).waitFor();
    },

    async "a push is seen as it happens"() {
      await tab("Activity");
      const pushed = push();
      // A quick build may be a release before anybody can click on it.
      const building = page.locator(".entries li").filter({ hasText: /Build [0-9a-f]{8}/ }).getByRole("link");
      await building.or(page.getByRole("link", { name: "build log" })).first().click();
      await page.getByText(`${app}.localhost`).first().waitFor();
      await page.locator(".output").getByText("deployed to platform").waitFor();
      await pushed;
      await tab("Overview");
      await page.locator(".dyno.good").getByText("web.1").waitFor();
      await page.locator(".app-head .pill.good").getByText("Live").waitFor();
      assert.equal((await visit("/")).body, "version 1 web.1");
    },

    async "three dynos run after two clicks"() {
      await page.getByLabel("One web dyno more").click();
      await notice("web is scaled to 2");
      await page.getByLabel("One web dyno more").click();
      await notice("web is scaled to 3");
      for (const name of ["web.1", "web.2", "web.3"]) {
        await page.locator(".dyno.good").getByText(name, { exact: true }).waitFor();
      }
      const answers = new Set();
      await until("all three answer", async () => answers.add((await visit("/")).body).size === 3);
      await page.getByLabel("Number of web dynos").fill("1");
      await page.keyboard.press("Enter");
      await notice("web is scaled to 1");
      await until("two go", async () => (await page.locator(".dyno").count()) === 1);
      await page.getByLabel("Size of web").selectOption("Standard-2X");
      await notice("of size Standard-2X");
    },

    async "config vars are set, masked, edited and removed, over several lines"() {
      await tab("Config");
      await page.getByLabel("Name").fill("GREETING");
      await page.getByRole("textbox", { name: "Value" }).fill(`one "line"\nand ${HOSTILE}`);
      await button("Save and release").click();
      await notice("Set GREETING config vars: this is v3");
      assert.ok(!(await page.content()).includes("onerror"), "it is masked");
      await page.getByLabel("Reveal the value of GREETING").click();
      await page.locator(".vars pre").getByText(HOSTILE).waitFor();
      const seen = async () => JSON.parse((await visit("/env")).body).GREETING;
      await until("the app has it", async () => (await seen()) === `one "line"\nand ${HOSTILE}`);
      await page.getByLabel("Edit GREETING").click();
      const value = page.getByRole("textbox", { name: "Value" });
      await until("its value is there", async () => (await value.inputValue()) === `one "line"\nand ${HOSTILE}`);
      await value.fill("hello");
      await button("Save and release").click();
      await notice("this is v4");
    },

    async "a pasted .env changes nothing before it is looked at"() {
      await link("Paste a .env").click();
      await page.getByLabel("Text").fill("# shop\nGREETING=hello\nexport COLOUR='dark $blue'\nnonsense");
      await button("See what changes").click();
      await notice("Line 4 is not NAME=value");
      await page.getByLabel("Text").fill("# shop\nGREETING=hello\nexport COLOUR='dark $blue'\n");
      await button("See what changes").click();
      await page.locator(".diff-config .added").getByText("COLOUR").waitFor();
      await page.getByText("1 with the same value already").waitFor();
      await button("Apply and release").click();
      await notice("Set COLOUR, GREETING config vars: this is v5");
      await page.getByLabel("Remove GREETING").click();
      await notice("this is v6");
      await until("the app is told", async () => {
        const env = JSON.parse((await visit("/env")).body);
        return env.COLOUR === "dark $blue" && env.GREETING === undefined;
      });
    },

    async "going back shows what will change, and the old version answers"() {
      const file = `${repository}/probe.py`;
      await writeFile(file, (await readFile(file, "utf8")).replace('VERSION = "1"', 'VERSION = "2"'));
      await run("git", ["-C", repository, "commit", "-qam", "Count to two"]);
      await push();
      assert.equal((await visit("/")).body, "version 2 web.1");
      await tab("Activity");
      await page.getByRole("link", { name: "Roll back to v2" }).click();
      await page.getByRole("heading", { name: "Roll back to v2?" }).waitFor();
      await page.locator(".diff-code").getByText("Count to two").waitFor();
      await page.locator(".diff-config .removed").getByText("COLOUR").waitFor();
      await button("Roll back to v2").click();
      await notice("Rolling back to v2: this is v8");
      await until("the old version answers", async () => (await visit("/")).body === "version 1 web.1");
      await page.locator(".entries li").first().locator(".pill").getByText("Current").waitFor();
    },

    async "the log is followed, filtered and held, whatever is in it"() {
      await tab("Logs");
      const lines = page.locator("[data-log-lines] li:not([hidden])");
      await page.locator("[data-log-state]").getByText("Live").waitFor();
      await visit(`/log?${encodeURIComponent(HOSTILE)}`);
      await lines.locator(".text").getByText(HOSTILE, { exact: true }).waitFor();
      assert.equal(await page.locator("main img").count(), 0);
      await button("Pause").click();
      await visit("/log?while-it-is-held");
      await page.locator("[data-log-state]").getByText(/Paused, \d+ new/).waitFor();
      assert.equal(await lines.getByText("while-it-is-held", { exact: true }).count(), 0);
      await button("Go on").click();
      await lines.getByText("while-it-is-held", { exact: true }).waitFor();
      await page.getByLabel("Only lines with this text").fill("IS-HELD");
      await until("the others are hidden", async () => (await lines.getByText("starts as web").count()) === 0);
      await page.getByLabel("Only lines with this text").fill("");
      await page.getByLabel("Which lines").selectOption("router");
      await page.waitForURL("**/logs?process=router&q=");
      await lines.locator(".source").getByText("router").first().waitFor();
      const others = lines.locator(".source").getByText("web.1", { exact: true });
      await until("the app's own are gone", async () => (await others.count()) === 0);
    },

    async "an outside service is attached and detached"() {
      await tab("Add-ons");
      await button("Add PostgreSQL").waitFor();
      await page.getByText("Use an outside service").click();
      await page.getByLabel("URL").fill("nonsense");
      await page.getByLabel("Attach as").first().fill("SHOP");
      await button("Attach").first().click();
      await notice("url must be a URL");
      await page.getByText("Use an outside service").click();
      await page.getByLabel("URL").fill("mysql://user:password@shop.example/orders");
      await page.getByLabel("Attach as").first().fill("SHOP");
      await button("Attach").first().click();
      await page.locator(".addons .var").getByText("SHOP_URL").waitFor();
      const seen = async () => JSON.parse((await visit("/env")).body).SHOP_URL;
      await until("the app is told", async () => (await seen()) === "mysql://user:password@shop.example/orders");
      await tab("Config");
      await page.getByRole("link", { name: /^from external-/ }).click();
      await page.getByRole("button", { name: /^Detach external-/ }).click();
      await notice("is detached from");
      await until("the app has lost it", async () => (await seen()) === undefined);
    },

    async "a domain comes and goes"() {
      await tab("Domains");
      const domain = `www.${app}.example`;
      await page.getByLabel("Host name").fill("not a domain");
      await button("Add domain").click();
      await page.locator(".notice.bad").waitFor();
      await page.getByLabel("Host name").fill(domain);
      await button("Add domain").click();
      await notice(`${domain} was added`);
      await page.getByLabel(`Remove ${domain}`).click();
      await notice(`${domain} was removed`);
    },

    async "everything can be read, and forms sent, without a script and on a small screen"() {
      const plain = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 360, height: 640 } });
      const other = await plain.newPage();
      await signIn(other);
      const at = (path) => other.goto(`${settings.url}/console/apps/${app}${path}`);
      for (const path of ["", "/activity", "/releases/v2", "/config?reveal=*", "/config/paste", "/addons", "/domains", "/logs", "/settings"]) {
        await at(path);
        await other.getByRole("heading", { name: app }).waitFor();
      }
      await at("/logs");
      await other.locator("[data-log-lines]").getByText(HOSTILE, { exact: true }).first().waitFor();
      await at("");
      await other.getByLabel("One worker dyno more").click();
      await other.locator(".notice").getByText("worker is scaled to 1").waitFor();
      await plain.close();
      await page.setViewportSize({ width: 360, height: 640 });
      for (const path of ["", "/activity", "/releases/v8", "/releases/v2/rollback", "/config", "/config/paste", "/addons", "/domains", "/logs", "/settings"]) {
        await go(`apps/${app}${path}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(wide, 0, `${path} is too wide`);
      }
      await page.setViewportSize({ width: 1200, height: 800 });
    },

    async "forms of others are refused"() {
      const scale = `${settings.url}/console/apps/${app}/scale`;
      await go(`apps/${app}`);
      const csrf = await page.locator("input[name=csrf]").first().inputValue();
      const post = (form, headers = {}) => context.request.post(scale, { form, headers, maxRedirects: 0 });
      const wish = { process: "web", quantity: "9" };
      assert.equal((await post(wish)).status(), 403, "no token");
      assert.equal((await post({ ...wish, csrf: "0".repeat(64) })).status(), 403, "another's token");
      const origin = settings.url.replace("localhost", `${app}.localhost`);
      assert.equal((await post({ ...wish, csrf }, { origin })).status(), 403, "from the app's own page");
      assert.equal(await page.getByLabel("Number of web dynos").inputValue(), "1");
      assert.equal((await post({ ...wish, csrf, quantity: "1" }, { origin: settings.url })).status(), 303);
    },

    async "it is locked and frozen, and both are seen and ended"() {
      await go(`apps/${app}`);
      await tab("Settings");
      await page.getByLabel("When").fill("some day");
      await page.getByLabel("Why", { exact: true }).fill("Nobody is here");
      await button("Add").click();
      await notice("A freeze window is written like");
      assert.equal(await page.getByLabel("When").inputValue(), "some day", "nothing is typed twice");
      const next = new Date().getUTCFullYear() + 1;
      await page.getByLabel("When").fill(`${next}-01-01 00:00 - ${next}-01-02 UTC`);
      await button("Add").click();
      await notice("The freeze window was added");
      await page.locator(".rows").getByText("Nobody is here").waitFor();
      await page.getByRole("button", { name: `Remove ${next}-01-01` }).click();
      await notice("The freeze window was removed");
      await page.getByLabel("Why, for whoever is stopped by it").fill("The database moves");
      await button(`Lock ${app}`).click();
      await notice("Nobody deploys or configures the app now");
      await tab("Config");
      await page.locator(".notice.warn").getByText("The database moves").waitFor();
      await page.getByLabel("Name").fill("LATE");
      await page.getByRole("textbox", { name: "Value" }).fill("change");
      await button("Save and release").click();
      await page.locator(".notice.bad").getByText("The database moves").waitFor();
      assert.equal(await page.getByLabel("Name").inputValue(), "LATE");
      await tab("Settings");
      await button("Unlock").click();
      await notice("The app can be deployed and configured again");
    },

    async "maintenance, another name, and the end"() {
      await go(`apps/${app}`);
      await tab("Settings");
      await button("Begin maintenance").click();
      await notice("Visitors get the maintenance page now.");
      await until("visitors are told", async () => (await visit("/")).status === 503);
      await button("End maintenance").click();
      // The answer is the page that the next form is on: what is filled in before it is there is lost.
      await notice("Visitors get the app again.");
      await until("visitors get the app", async () => (await visit("/")).status === 200);
      await page.getByLabel("Name").fill(`${app}-two`);
      await button("Rename").click();
      await notice(`git remote set-url platform ${settings.url}/${app}-two.git`);
      await page.waitForURL(`**/apps/${app}-two/settings`);
      await until("it answers there", async () => (await visit("/", `${app}-two`)).status === 200);
      const end = button(`Delete ${app}-two`);
      await until("it asks for the name first", () => end.isDisabled());
      await page.getByLabel("Type").fill(`${app}-two`);
      await end.click();
      await notice(`${app}-two was deleted`);
      assert.equal(await page.getByRole("link", { name: `${app}-two`, exact: true }).count(), 0);
      await until("nothing answers", async () => (await visit("/", `${app}-two`)).status === 404);
    },

    async "who signed out is out"() {
      const left = (await context.cookies()).filter((cookie) => cookie.name === "platform_session");
      await page.getByLabel("Account").click();
      await button("Sign out").click();
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
      // Whoever kept the cookie has nothing in it.
      await context.addCookies(left);
      await go("apps");
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
    },
  };

  await walk(page, steps);
});
