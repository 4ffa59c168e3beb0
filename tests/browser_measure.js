// Measures the page in the frame, and writes what it found into the outer document as JSON.

function channels(colour) {
  const found = colour.match(/rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?\)/);
  return found && found[4] !== "0" ? found.slice(1, 4).map(Number) : null;
}

function luminance(rgb) {  // WCAG 2, relative luminance
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

function ground(element, style) {
  if (element.classList.contains("inside")) {
    return channels(style(element.parentNode.querySelector("rect")).fill);
  }
  for (let e = element; e; e = e.parentElement) {
    const found = channels(style(e).backgroundColor);
    if (found) return found;
  }
  return [255, 255, 255];
}

function overlaps(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 1 && height > 3;  // letters are less high than their line
}

function measure(frame) {
  const page = frame.contentDocument;
  const style = (e) => frame.contentWindow.getComputedStyle(e);
  const root = page.documentElement;
  const found = {
    width: frame.contentWindow.innerWidth,
    overflow: root.scrollWidth - root.clientWidth,
    title: page.title,
    ground: style(page.body).backgroundColor,
    charts: page.querySelectorAll("svg[role=img]").length,
    tables: page.querySelectorAll("table").length,
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map((e) => e.name),
    faint: [], small: [], collisions: [], outside: [], scrolling: [], cut: [],
  };
  const texts = [...page.querySelectorAll("body *")].filter((e) =>
    e.tagName !== "title" && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  for (const e of texts) {
    const svg = e.namespaceURI.endsWith("svg");
    const ratio = contrast(channels(svg ? style(e).fill : style(e).color), ground(e, style));
    if (ratio < 4.5) found.faint.push([e.textContent, ratio]);
    const size = parseFloat(style(e).fontSize) * (svg ? e.getScreenCTM().a : 1);
    if (size < 10.5) found.small.push([e.textContent, size]);
  }
  for (const box of page.querySelectorAll(".scroll")) {
    if (box.scrollWidth <= box.clientWidth) continue;
    found.scrolling.push(box.getAttribute("aria-label"));
    const {backgroundAttachment: fixed, backgroundSize: size} = style(box);  // shadows stay, what covers them scrolls
    const shadows = fixed.split(", ").map((how, k) => how === "scroll" ? parseFloat(size.split(", ")[k]) : 0);
    if (shadows.filter((width) => width >= 16).length < 2) found.cut.push(box.getAttribute("aria-label"));
  }
  for (const chart of page.querySelectorAll("svg[role=img]")) {
    const boxes = [...chart.querySelectorAll("text")].map((e) => [e.textContent, e.getBoundingClientRect()]);
    const card = chart.closest("figure").getBoundingClientRect();
    boxes.forEach(([text, box], k) => {
      if (box.left < card.left || box.right > card.right) found.outside.push(text);
      for (const [other, another] of boxes.slice(k + 1)) {
        if (overlaps(box, another)) found.collisions.push([text, other]);
      }
    });
  }
  return found;
}

const frame = document.getElementById("page");
frame.addEventListener("load", () => {
  const out = document.createElement("pre");
  out.id = "found";
  try {
    out.textContent = JSON.stringify(measure(frame));
  } catch (error) {
    out.textContent = JSON.stringify({error: String(error)});
  }
  document.body.append(out);
});
