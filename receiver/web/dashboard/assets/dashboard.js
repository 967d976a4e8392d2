// What a page shows stays up to date: regions of it are replaced by those of its next answer.
//
// <main data-poll="5"> asks every 5 seconds; elements with `data-region` and an id are replaced
// where they have changed. All pages work without this file.

const LONGEST = 60_000;
/** Of its time a server spends at most a part in so many on one open page. */
const SHARE = 20;
const main = document.querySelector("main[data-poll]");

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

if (main) {
  const usual = Number(main.dataset.poll) * 1000;
  const stale = document.getElementById("stale");
  let wait = usual;
  let timer;

  const ask = async () => {
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect") {
        location.reload(); // signed out
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      replaceRegions(new DOMParser().parseFromString(await answer.text(), "text/html"));
      wait = Math.min(LONGEST, Math.max(usual, SHARE * (performance.now() - began)));
      stale.hidden = true;
    } catch {
      wait = Math.min(LONGEST, 2 * wait);
      stale.hidden = false;
    }
    plan();
  };

  const plan = (after = wait) => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(ask, after);
  };

  document.addEventListener("visibilitychange", () => plan(0));
  plan();
}
