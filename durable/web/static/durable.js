// Lists stay live, the debugger hears keys, files can be dropped. Every page works without this.
"use strict";

const PAUSE = 2000;

// --- what is live is asked for again, unless nobody looks or somebody is at work in it -----------------------------

let tag = ""; // of what is shown

const live = [...document.querySelectorAll("[data-live]")];

function busy() {
  const chosen = document.getSelection();
  const active = document.activeElement;
  return document.hidden || (chosen && !chosen.isCollapsed) || (active && active.closest("[data-live] form"));
}

async function refresh() {
  if (!busy()) {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html", "If-None-Match": tag } });
      if (answer.status === 304) document.getElementById("live").hidden = false; // nothing has happened
      else if (answer.ok) {
        tag = answer.headers.get("ETag") || "";
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const old of document.querySelectorAll("[data-live]")) {
          const made = fresh.getElementById(old.id);
          if (made && made.innerHTML !== old.dataset.last) put(old, made);
        }
        document.getElementById("live").hidden = false;
      } else document.getElementById("live").hidden = true;
    } catch {
      document.getElementById("live").hidden = true; // the host is away: asked again in a moment
    }
  }
  setTimeout(refresh, PAUSE);
}

function put(old, made) {
  const open = [...old.querySelectorAll("details[open][id]")].map((each) => each.id);
  const focused = document.activeElement && old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  old.dataset.last = made.innerHTML;
  old.replaceChildren(...made.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) [...old.querySelectorAll("a")].find((each) => each.getAttribute("href") === focused)?.focus();
}

if (live.length) {
  for (const each of live) each.dataset.last = each.innerHTML;
  setTimeout(refresh, PAUSE);
  document.addEventListener("visibilitychange", () => {
    document.documentElement.dataset.hidden = String(document.hidden);
  });
}

// --- where navigation scrolls, on a phone, the page that is open is seen ---------------------------------------------

for (const each of document.querySelectorAll("nav [aria-current=page]")) {
  each.parentElement.scrollLeft = each.offsetLeft - each.parentElement.offsetLeft - 40;
}

// --- the debugger ------------------------------------------------------------------------------------------------

if (document.querySelector("[data-debug]")) {
  const keys = { ArrowLeft: "back", ArrowRight: "next", Home: "first", End: "last", f: "failure" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const link = keys[event.key] && document.getElementById(keys[event.key]);
    if (link) {
      event.preventDefault();
      link.click();
    }
  });
  const scrubber = document.getElementById("scrubber");
  scrubber.addEventListener("change", () => scrubber.form.requestSubmit());
  scrubber.addEventListener("input", () => {
    scrubber.previousElementSibling.textContent = `Stop ${scrubber.value} of ${scrubber.max}`;
  });
  const current = document.getElementById("current");
  const list = current && current.closest("ol");
  if (list) list.scrollTop = current.offsetTop - list.offsetTop - list.clientHeight / 2;
}

// --- exports that are dropped ------------------------------------------------------------------------------------

const drop = document.getElementById("drop");
if (drop) {
  for (const name of ["dragover", "dragenter"])
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) {
      drop.querySelector("input").files = event.dataTransfer.files;
      drop.requestSubmit();
    }
  });
}
