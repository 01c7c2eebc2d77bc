// What htmx does not do: parts of a page that follow what happens, the log, and small conveniences. Every page can be read without it.
"use strict";

document.documentElement.classList.add("script");

// What programs colour their output with.
const ESCAPES = /\u001b\[[^@-~]*[@-~]/g;

// At most one stream is open: browsers allow six to a server over all tabs. A tab that nobody looks at has none.
let stream = null;
let reopen = null;

function listen(url, handlers) {
  hush();
  let again = false;
  reopen = () => {
    if (again && handlers.again) handlers.again();
    again = true;
    stream = new EventSource(url);
    for (const [name, handler] of Object.entries(handlers)) {
      stream.addEventListener(name, handler);
    }
    stream.addEventListener("over", () => {
      hush();
      if (handlers.done) handlers.done();
    });
  };
  if (!document.hidden) reopen();
}

function hush() {
  if (stream) stream.close();
  stream = null;
  reopen = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && stream) {
    stream.close();
    stream = null;
  } else if (!document.hidden && !stream && reopen) {
    reopen();
  }
});

// Parts that follow what happens. One with a field that was changed and not sent waits.
function follow(element) {
  const waiting = new Map();
  const isBusy = (part) => {
    const field = document.activeElement;
    return part.contains(field) && field.matches("input") && field.value !== field.defaultValue;
  };
  const put = (id) => {
    const part = document.getElementById(id);
    if (!part || !waiting.has(id) || isBusy(part)) return;
    htmx.swap(part, waiting.get(id), { swapStyle: "innerHTML", settleDelay: 0, swapDelay: 0 });
    waiting.delete(id);
  };
  const take = (event) => {
    waiting.set(event.type, event.data);
    put(event.type);
  };
  element.addEventListener("focusout", () => setTimeout(() => put("live"), 0));
  listen(element.dataset.follow, { head: take, live: take });
}

// Output of a build, line by line. It scrolls along unless somebody scrolled up.
function output(element) {
  const scroll = keepAtEnd(element);
  listen(element.dataset.output, {
    line: (event) => {
      element.append(event.data.replace(ESCAPES, "") + "\n");
      scroll();
    },
    done: () => location.reload(),
    again: () => location.reload(),
  });
  scroll();
}

function keepAtEnd(element) {
  let atEnd = true;
  element.addEventListener("scroll", () => {
    atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
  });
  return () => {
    if (atEnd) element.scrollTop = element.scrollHeight;
  };
}

const MAX_LINES = 2000;

// The log: its stream begins with the lines that the page shows already.
function logs(element) {
  const list = element.querySelector("[data-log-lines]");
  const filter = element.querySelector("[data-log-filter]");
  const state = element.querySelector("[data-log-state]");
  const pause = element.querySelector("[data-log-pause]");
  const empty = element.querySelector("[data-log-empty]");
  const scroll = keepAtEnd(list);
  let fresh = true;
  let paused = null;
  let coming = [];

  const fits = (item) => item.textContent.toLowerCase().includes(filter.value.toLowerCase());
  const show = (lines) => {
    const items = document.createDocumentFragment();
    for (const line of lines) {
      const match = /^(\S+) (\w+)\[([^\]]*)\]: ?(.*)$/s.exec(line);
      if (!match) continue;
      const item = document.createElement("li");
      const time = document.createElement("time");
      time.dateTime = match[1];
      time.textContent = match[1].slice(11, 23);
      const source = document.createElement("span");
      source.className = `source ${match[2]}`;
      source.textContent = match[3];
      const text = document.createElement("span");
      text.className = "text";
      text.textContent = match[4].replace(ESCAPES, "");
      item.append(time, source, text);
      item.hidden = !fits(item);
      items.append(item);
    }
    list.append(items);
    while (list.children.length > MAX_LINES) list.firstElementChild.remove();
    empty.hidden = list.querySelector("li:not([hidden])") !== null;
    scroll();
  };
  const flush = () => {
    if (fresh) list.replaceChildren();
    fresh = false;
    show(coming);
    coming = [];
  };
  const tell = () => {
    if (paused === null) state.textContent = "Live";
    else state.textContent = paused.length ? `Paused, ${paused.length} new` : "Paused";
    element.classList.toggle("live", paused === null);
  };
  pause.addEventListener("click", () => {
    const held = paused;
    paused = held === null ? [] : null;
    pause.setAttribute("aria-pressed", String(paused !== null));
    pause.textContent = paused === null ? "Pause" : "Go on";
    if (held) show(held);
    tell();
  });
  filter.addEventListener("input", () => {
    for (const item of list.children) item.hidden = !fits(item);
    empty.hidden = list.querySelector("li:not([hidden])") !== null;
    scroll();
  });
  filter.form.addEventListener("submit", (event) => event.submitter && event.preventDefault());
  listen(element.dataset.logs, {
    again: () => (fresh = true),
    message: (event) => {
      if (paused === null) {
        if (coming.length === 0) requestAnimationFrame(flush);
        coming.push(event.data);
      } else {
        paused.push(event.data);
        if (paused.length > MAX_LINES) paused.shift();
        tell();
      }
    },
    // Refused rather than broken: the session is over, and the page has another.
    error: () => {
      state.textContent = "Connecting";
      if (stream && stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 1000);
    },
    open: tell,
  });
  tell();
  scroll();
}

// Moments grow older, or come nearer, while a page is open.
function age() {
  for (const time of document.querySelectorAll("time[title]")) {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    const apart = Math.abs(seconds);
    if (apart >= 86400) continue;
    let length = "a moment";
    if (apart >= 3600) length = `${Math.floor(apart / 3600)} h`;
    else if (apart >= 60) length = `${Math.floor(apart / 60)} min`;
    if (seconds < 0) time.textContent = `in ${length}`;
    else time.textContent = apart < 60 ? "just now" : `${length} ago`;
  }
}
setInterval(age, 20000);

async function copy(button) {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not over plain HTTP from another machine.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = before), 1200);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-autosubmit]")) event.target.form.requestSubmit();
});
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-confirm]")) guard(event.target);
});
document.addEventListener(
  "submit",
  (event) => {
    const question = event.target.dataset.ask;
    if (question && !confirm(question)) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  },
  true,
);

// What is deleted for good has its name typed first.
function guard(input) {
  input.form.querySelector("button").disabled = input.value.trim() !== input.dataset.confirm;
}

document.addEventListener("htmx:sendError", () => {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.setAttribute("role", "alert");
  notice.textContent = "The platform did not answer, so it is not known whether that was done. Reload the page.";
  document.getElementById("main").prepend(notice);
});

let page = null;
function start() {
  const main = document.getElementById("main");
  if (main === page) return;
  page = main;
  hush();
  const on = (selector, action) => main.querySelectorAll(selector).forEach(action);
  on(".tabs [aria-current]", (tab) => tab.scrollIntoView({ inline: "center", block: "nearest" }));
  on("[data-follow]", follow);
  on("[data-output]", output);
  on("[data-logs]", logs);
  on("[data-confirm]", guard);
  const focus = main.querySelector("[autofocus]");
  if (focus && document.activeElement === document.body) focus.focus();
}

document.addEventListener("DOMContentLoaded", start);
document.addEventListener("htmx:afterSettle", start);
