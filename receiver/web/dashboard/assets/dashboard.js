// What a page shows stays up to date, and all pages work without this file.
//
// <main data-poll="5"> asks every 5 seconds; elements with `data-region` and an id are replaced
// where they have changed. <main data-live="/live?from=…"> appends what has come in since, each
// time from where the last answer ended.

const LONGEST = 60_000;
/** Of its time a server spends at most a part in so many on one open page. */
const SHARE = 20;
/** Milliseconds between two looks at what comes in, and events that stay in the list. */
const LIVE = 1_500;
const MOST = 500;

/**
 * Asks again and again: slower where the server is slow, and not in a tab that nobody sees.
 * Returns what makes it ask after so many milliseconds instead.
 */
function keepAsking(usual, ask) {
  const stale = document.getElementById("stale");
  let wait = usual;
  let timer;

  const run = async () => {
    const began = performance.now();
    try {
      const more = await ask();
      wait = Math.min(LONGEST, Math.max(more ? 0 : usual, SHARE * (performance.now() - began)));
      stale.hidden = true;
    } catch {
      wait = Math.min(LONGEST, 2 * Math.max(wait, usual));
      stale.hidden = false;
    }
    plan();
  };

  const plan = (after = wait) => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(run, after);
  };

  document.addEventListener("visibilitychange", () => plan(0));
  plan();
  return plan;
}

async function read(address) {
  const answer = await fetch(address, { redirect: "manual", cache: "no-store" });
  if (answer.type === "opaqueredirect") location.reload(); // signed out
  if (!answer.ok) throw new Error(String(answer.status));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** What one reads, types or is about to press does not move. */
function isInUse(region) {
  const chosen = document.getSelection();
  return (
    region.contains(document.activeElement) ||
    region.querySelector(":hover:is(a, button, summary, input, select)") !== null ||
    (chosen && !chosen.isCollapsed && region.contains(chosen.anchorNode))
  );
}

function replaceRegions(fresh) {
  for (const region of document.querySelectorAll("[data-region]")) {
    const other = fresh.getElementById(region.id);
    if (other && !other.isEqualNode(region) && !isInUse(region)) {
      region.replaceWith(document.adoptNode(other));
    }
  }
}

/** The list grows at its end, and stays where it is for one who reads further up. */
function follow(main) {
  const list = document.getElementById("arrivals");
  const pause = document.getElementById("pause");
  const newer = document.getElementById("newer");
  let next = main.dataset.live;
  let isPaused = false;

  const setPaused = (paused) => {
    isPaused = paused;
    pause.setAttribute("aria-pressed", String(paused));
  };
  const isAtEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < 40;

  pause.hidden = false;
  newer.hidden = true;
  list.scrollTop = list.scrollHeight;

  const askAfter = keepAsking(LIVE, async () => {
    if (isPaused) return false;
    const fresh = await read(next);
    if (isPaused) return false; // pressed meanwhile: the same is asked for again later
    next = fresh.querySelector("main").dataset.live;
    const stay = isAtEnd();
    const arrivals = fresh.getElementById("arrivals");
    for (const item of [...arrivals.children]) {
      if (!document.getElementById(item.id)) list.append(document.adoptNode(item));
    }
    document.getElementById("waiting").hidden = list.children.length > 0;
    if (stay) {
      while (list.children.length > MOST && !list.firstElementChild.matches(":focus-within")) {
        list.firstElementChild.remove();
      }
      list.scrollTop = list.scrollHeight;
    } else if (list.children.length > 4 * MOST) {
      setPaused(true);
    }
    return "full" in arrivals.dataset;
  });

  pause.addEventListener("click", () => {
    setPaused(!isPaused);
    if (!isPaused) askAfter(0);
  });
}

const main = document.querySelector("main");
if (main.dataset.poll) {
  keepAsking(Number(main.dataset.poll) * 1000, async () => {
    replaceRegions(await read(location.href));
    return false;
  });
}
if (main.dataset.live) follow(main);
