// Debian's Chromium, driven by Playwright.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Where the console is and who signs in, as whoever starts this says. */
export const settings = {
  url: process.env.CONSOLE_URL,
  email: process.env.CONSOLE_EMAIL,
  password: process.env.CONSOLE_PASSWORD,
};

/** Starts the browser, hands it over, and closes it whatever happens. */
export async function withBrowser(use) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  try {
    await use(browser);
  } finally {
    await browser.close();
  }
}

/** Fills in the form of the sign-in page. */
export async function giveSignIn(page, { email, password } = settings) {
  await page.getByLabel("E-mail address").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Signs in and waits for the list of apps. */
export async function signIn(page, who = settings) {
  await page.goto(`${settings.url}/`);
  await giveSignIn(page, who);
  await page.waitForURL("**/console/apps");
}

/** Does one step after the other, on a page that shows what it was like when one fails. */
export async function walk(page, steps) {
  const refused = [];
  page.context().on("console", (message) => {
    if (/Content.Security.Policy/i.test(message.text())) refused.push(message.text());
  });
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
    } catch (error) {
      await page.screenshot({ path: process.env.CONSOLE_PICTURE, fullPage: true });
      console.error(`${page.url()} at: ${name}`);
      throw error;
    }
    console.log(`ok: ${name}`);
  }
  assert.deepEqual(refused, [], "the policy of the pages allows all that they do");
}
