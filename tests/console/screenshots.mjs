// Takes the pictures in docs/screenshots. Started by scripts/screenshots.sh, which makes the platform that is seen:
// `first` before there is a user, `pages` with apps that have a history.
import { mkdir } from "node:fs/promises";
import { settings, signIn, withBrowser } from "./browser.mjs";

const FOLDER = new URL(process.env.SCREENSHOTS_DIR ?? "../../docs/screenshots/", import.meta.url).pathname;
const DESK = { width: 1180, height: 780 };
const PHONE = { width: 390, height: 780 };

const looks = [
  { name: "light", viewport: DESK, colorScheme: "light" },
  { name: "dark", viewport: DESK, colorScheme: "dark" },
  { name: "phone", viewport: PHONE, colorScheme: "light", isMobile: true, hasTouch: true },
];

async function shoot(page, look, name) {
  // What is under the edge of the window is part of the page.
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewportSize({ width: look.viewport.width, height: Math.min(Math.max(height, 600), 1500) });
  await page.evaluate(() => document.activeElement?.blur());
  await page.screenshot({ path: `${FOLDER}${name}-${look.name}.png`, animations: "disabled" });
  await page.setViewportSize(look.viewport);
}

async function first(browser) {
  const page = await browser.newPage(looks[0]);
  await page.goto(process.env.CONSOLE_SETUP);
  await shoot(page, looks[0], "first-run");
  await page.getByLabel("E-mail address").fill(settings.email);
  await page.getByLabel("Password").fill(settings.password);
  await page.getByRole("button", { name: "Create the first user" }).click();
  await page.waitForURL("**/console/apps");
  await shoot(page, looks[0], "apps-empty");
}

async function pages(browser) {
  for (const look of looks) {
    const context = await browser.newContext(look);
    const page = await context.newPage();
    const at = (path) => page.goto(`${settings.url}/console/${path}`);
    await page.goto(`${settings.url}/console/sign-in`);
    await shoot(page, look, "sign-in");
    await signIn(page);
    const shop = "apps/storefront";
    await shoot(page, look, "apps");
    for (const [name, path] of [
      ["new-app", "new"],
      ["overview", shop],
      ["app-empty", "apps/landing"],
      ["activity", `${shop}/activity`],
      ["config", `${shop}/config?reveal=SIGNING_KEY`],
      ["addons", `${shop}/addons`],
      ["jobs", `${shop}/jobs`],
      ["domains", `${shop}/domains`],
      ["settings", `${shop}/settings`],
      ["release", `${shop}/releases/v3`],
      ["not-found", "apps/nothing"],
    ]) {
      await at(path);
      if (name === "overview") await page.locator(".dyno.good").nth(2).waitFor();
      await shoot(page, look, name);
    }
    await at(`${shop}/addons`);
    await page.locator(".addons a.plain").first().click();
    await page.getByRole("heading", { name: "Backups" }).waitFor();
    await shoot(page, look, "addon");
    await at(`${shop}/config/paste`);
    await page.getByLabel("Text").fill("LOG_LEVEL=warn\nSENTRY_DSN=https://key@sentry.example.com/7\nMAIL_FROM=shop@example.com\n");
    await page.getByRole("button", { name: "See what changes" }).click();
    await page.getByRole("heading", { name: "What changes" }).waitFor();
    await shoot(page, look, "config-paste");
    await at(`${shop}/activity`);
    await page.getByRole("link", { name: "Roll back to v2" }).click();
    await page.waitForURL("**/rollback");
    await shoot(page, look, "rollback");
    await at(`${shop}/activity`);
    await page.getByRole("link", { name: "build log" }).last().click();
    await page.waitForURL("**/builds/*");
    await shoot(page, look, "build");
    await at(`${shop}/logs`);
    await page.getByText("Live", { exact: true }).first().waitFor();
    await page.locator(".log li").nth(10).waitFor();
    await shoot(page, look, "logs");
    await context.close();
  }
}

await mkdir(FOLDER, { recursive: true });
await withBrowser(process.argv[2] === "first" ? first : pages);
