// What every page does in the browser: stay up to date, tell times in the reader's zone, keep what was opened open.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  // --- a form that was refused is answered under its own address: the page's address is the one to load again ---
  if (document.body.dataset.path !== location.pathname + location.search) {
    history.replaceState(null, "", document.body.dataset.path + location.hash);
  }

  // --- live: the server says "something changed", the page fetches its own part again ---
  const state = document.getElementById("live-state");
  const url = document.body.dataset.events;
  let source = null;
  let retry = 0;
  let busy = false;
  let again = false;
  let filtering = 0;
  let shown = document.body.dataset.revision;

  const say = (word) => {
    if (!state) return;
    state.className = "live " + word;
    state.lastElementChild.textContent = state.dataset[word === "on" ? "live" : word];
  };

  const rest = 2000; // a busy fleet changes all the time; people do not read faster than this
  const refresh = async () => {
    if (busy || filtering) { again = true; return; }
    busy = true;
    const began = Date.now();
    try {
      await window.htmx.ajax("GET", location.pathname + location.search, {
        source: "#live", target: "#live", swap: "innerMorph", headers: { "Wavegate-Tick": "1" },
      });
      document.dispatchEvent(new CustomEvent("wavegate:tick"));
    } finally {
      setTimeout(() => {
        busy = false;
        if (again) { again = false; refresh(); }
      }, Math.max(0, rest - (Date.now() - began)));
    }
  };

  const close = () => { source?.close(); source = null; clearTimeout(retry); };
  const open = () => {
    if (!url || source || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener("tick", (event) => {
      say("on");
      const first = shown !== null && event.data === shown;
      shown = null;
      if (!first && window.htmx) refresh();
    });
    source.addEventListener("error", () => {
      say("lost");
      if (source?.readyState === EventSource.CLOSED) { close(); retry = setTimeout(open, 5000); }
    });
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); say("paused"); } else { open(); }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });

  // an answer to an older question must not replace the answer to a newer one
  const isTick = (ctx) => ctx?.request?.headers?.["Wavegate-Tick"] === "1";
  document.addEventListener("htmx:before:request", (event) => {
    if (!isTick(event.detail.ctx)) filtering += 1;
  });
  document.addEventListener("htmx:finally:request", (event) => {
    if (!isTick(event.detail.ctx)) filtering = Math.max(0, filtering - 1);
  });
  document.addEventListener("htmx:before:response", (event) => {
    const ctx = event.detail.ctx;
    if (isTick(ctx) && (filtering || ctx.request.action !== location.pathname + location.search)) event.preventDefault();
  });

  // --- times: the server writes UTC, the reader sees local time ---
  const format = new Intl.DateTimeFormat(root.lang, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
  const localise = () => {
    for (const time of document.querySelectorAll("time[data-local]")) {
      time.textContent = format.format(new Date(time.dateTime));
    }
  };
  document.addEventListener("htmx:after:swap", localise);
  localise();

  // --- a refresh leaves alone what the reader opened ---
  window.htmx?.registerExtension("wavegate-keep", {
    htmx_before_morph_attr: (element, detail) => !(element.tagName === "DETAILS" && detail.attrName === "open"),
  });

  // --- theme without a reload: system, dark, light ---
  const theme = document.getElementById("theme");
  const next = { auto: "dark", dark: "light", light: "auto" };
  theme?.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const chosen = next[root.dataset.theme] ?? "auto";
    root.dataset.theme = chosen;
    document.cookie = `wavegate-theme=${chosen}; path=/; max-age=31536000; secure; samesite=lax`;
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    const fresh = page.getElementById("theme");
    if (fresh) {
      theme.replaceChildren(...fresh.childNodes);
      theme.setAttribute("aria-label", fresh.getAttribute("aria-label"));
      theme.title = fresh.title;
      theme.href = fresh.href;
    }
  });

  open();
})();
