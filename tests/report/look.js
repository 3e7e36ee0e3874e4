// Runs in a copy of a report, when all of it is loaded; returns what the test compares.
const colour = (text) => (text.match(/[\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const contrast = (one, other) => {
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const behind = (element) => {
  for (let it = element; it; it = it.parentElement) {
    const found = colour(getComputedStyle(it).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const name = (element) => `${element.tagName}.${element.getAttribute('class')}: ${element.textContent.trim().slice(0, 40)}`;
const is_seen = (element) => element.checkVisibility() && element.getClientRects().length > 0;
const all = [...document.body.querySelectorAll('*')].filter((it) => !it.closest('[data-probe]'));

// What is pushed out to the left on purpose is for screen readers.
const beyond = () => {
  const edge = document.documentElement.clientWidth;
  const wide = all.filter(is_seen).filter((it) => it.getBoundingClientRect().right > edge + 1 && !it.closest('svg'));
  const scrolls = document.documentElement.scrollWidth > edge ? ['the page'] : [];
  return [...scrolls, ...wide.map(name)].slice(0, 5);
};
const texts = () => all.filter(is_seen).filter((it) =>
  [...it.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
const faint = () => texts().filter((it) => {
  const style = getComputedStyle(it);
  const own = colour(it.closest('svg') ? style.fill : style.color);
  return contrast(own, behind(it)) < 4.5;
}).map(name);

const findings = {
  width: innerWidth,
  paper: getComputedStyle(document.body).backgroundColor,
  open: document.querySelectorAll('details[open]').length,
  details: document.querySelectorAll('details').length,
  workers: [...document.querySelectorAll('article.worker')].map((it) => it.id),
  broken_links: [...document.querySelectorAll('a')].map((it) => it.getAttribute('href'))
    .filter((href) => !href.startsWith('#') || !document.getElementById(href.slice(1))),
  beyond: beyond(),
  loaded: performance.getEntriesByType('resource').map((it) => it.name),
  foreign: [...document.querySelectorAll('img, script:not([data-probe]), iframe, object, embed, link, video, audio, base, form')].map(name),
  hostile: window.hostile || 0,
};
document.querySelectorAll('details').forEach((it) => { it.open = true; });
findings.beyond_when_open = beyond();
findings.faint = [...new Set(faint())].slice(0, 8);
findings.faint_bars = all.filter((it) => it.tagName === 'rect' && is_seen(it))
  .filter((it) => contrast(colour(getComputedStyle(it).fill), behind(it)) < 3).map((it) => it.getAttribute('class'));
return findings;
