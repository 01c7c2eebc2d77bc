// Debian's Chromium, driven by Playwright.
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

/** Signs in and waits for the list of apps. */
export async function signIn(page) {
  await page.goto(`${settings.url}/`);
  await page.getByLabel("E-mail address").fill(settings.email);
  await page.getByLabel("Password").fill(settings.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/console/apps");
}
