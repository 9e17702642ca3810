// What htmx leaves to the page: live or not, what stays open when it is drawn anew, times that pass, and keys.
(() => {
  "use strict";
  const offset = Number(document.body.dataset.now) - Date.now();

  // --- live, or gone and coming back
  let lost = false;
  const say = (gone) => {
    const live = document.getElementById("live");
    if (!live) return;
    live.classList.toggle("gone", gone);
    document.getElementById("live-text").textContent = gone ? "The stack is gone. Reconnecting…" : "Live";
  };
  const refresh = () => htmx.trigger("#refresh", "changed");
  let source = null;
  const listen = () => {
    if (source) source.close();
    source = new EventSource(document.body.dataset.live);
    source.addEventListener("changed", refresh);
    source.onopen = () => {
      // What happened meanwhile was not told.
      if (lost) refresh();
      lost = false;
      say(false);
    };
    source.onerror = () => {
      lost = true;
      say(true);
      // It tries again by itself, unless it was answered with an error.
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
    };
  };
  // A browser has six connections for all tabs together: one that nobody sees needs none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      if (source) source.close();
      lost = true;
    } else {
      listen();
    }
  });
  addEventListener("pagehide", () => source && source.close());
  addEventListener("pageshow", (event) => event.persisted && listen());
  document.body.addEventListener("htmx:sendError", () => {
    lost = true;
    say(true);
  });
  listen();

  // --- drawing anew
  let open = [];
  document.body.addEventListener("htmx:configRequest", (event) => {
    // The address may have changed since the page was made.
    if (event.detail.elt.id === "refresh") event.detail.path = location.pathname + location.search;
  });
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const isRefresh = event.detail.requestConfig.elt.id === "refresh";
    const selection = document.getSelection();
    const content = document.getElementById("content");
    // Who marks a text to copy it wants to keep it.
    if (isRefresh && selection && !selection.isCollapsed && content && content.contains(selection.anchorNode)) {
      event.detail.shouldSwap = false;
    }
    open = [...document.querySelectorAll("details[open][id]")].map((one) => one.id);
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    for (const id of open) {
      const one = document.getElementById(id);
      if (one) one.open = true;
    }
    tell();
  });

  // --- times, in the words of page.rs
  const words = (seconds) => {
    const s = Math.abs(seconds);
    if (s <= 2) return "now";
    const length =
      s < 90 ? `${s} s`
      : s < 5400 ? `${Math.floor((s + 30) / 60)} min`
      : s < 129600 ? `${Math.floor((s + 1800) / 3600)} h`
      : `${Math.floor((s + 43200) / 86400)} days`;
    return seconds < 0 ? `in ${length}` : `${length} ago`;
  };
  const tell = () => {
    const now = Date.now() + offset;
    for (const time of document.querySelectorAll("time[datetime]")) {
      const text = words(Math.trunc((now - Date.parse(time.dateTime)) / 1000));
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(tell, 1000);

  // --- keys
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const writes = target instanceof Element && target.closest("input, textarea, select");
    if (event.ctrlKey && event.key === "Enter" && target instanceof HTMLTextAreaElement) {
      target.form.requestSubmit();
      return;
    }
    if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search").focus();
    } else if (event.key === "j" || event.key === "k") {
      const lines = [...document.querySelectorAll(".line")];
      const at = lines.indexOf(document.activeElement);
      const next = lines[event.key === "j" ? at + 1 : Math.max(at - 1, 0)];
      if (next) next.focus();
    }
  });

  const select = document.getElementById("case");
  if (select) select.addEventListener("change", () => select.form.requestSubmit());
})();
