"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const body = (id) => byId(id).querySelector("div");
  let image = data.images[0];
  let chosen = "";

  // ---- elements: text is always text -------------------------------------------------------------

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    return fill(element, attributes, children);
  }
  function drawn(tag, attributes, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  }
  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }
  function named(text, tag = "bdi") { return make(tag, {}, text); }

  // ---- numbers -----------------------------------------------------------------------------------

  function size(bytes) {
    const amount = Math.abs(bytes);
    if (amount < 1000) return `${bytes} B`;
    if (amount < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
    if (amount < 1e9) return `${(bytes / 1e6).toFixed(1)} MB`;
    return `${(bytes / 1e9).toFixed(2)} GB`;
  }
  const count = (number) => number.toLocaleString("en-US");
  const signed = (text, number) => (number > 0 ? `+${text}` : text.replace("-", "−"));
  const ms = (us) => (us >= 1e6 ? `${(us / 1e6).toFixed(2)} s` : `${(us / 1e3).toFixed(1)} ms`);
  const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part * 10 < whole ? 1 : 0)} %` : "");
  const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many || one + "s"}`;

  // ---- tables ------------------------------------------------------------------------------------

  // columns: {head, value(row) to sort by, show(row), n: a number}
  function table(caption, columns, rows, { first = 25, filter = null, sort = -1 } = {}) {
    const state = { sort, down: true, all: false, text: "" };
    const tbody = make("tbody");
    const said = make("span", { class: "soft", "aria-live": "polite" });
    const more = make("button", { class: "button", type: "button", click: () => { state.all = !state.all; draw(); } });
    const heads = columns.map((column, at) => {
      if (!column.value) return make("th", { scope: "col", class: column.n ? "n" : null }, column.head);
      const turn = () => {
        state.down = state.sort === at ? !state.down : Boolean(column.n);
        state.sort = at;
        draw();
      };
      return make("th", { scope: "col", class: column.n ? "n" : null },
        make("button", { type: "button", click: turn }, column.head));
    });
    function draw() {
      let shown = state.text ? rows.filter((row) => filter(row).toLowerCase().includes(state.text)) : rows.slice();
      if (state.sort >= 0) {
        const { value } = columns[state.sort];
        shown.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (state.down ? -1 : 1));
      }
      heads.forEach((head, at) => {
        if (!columns[at].value) return;
        if (at === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      const found = shown.length;
      if (!state.all) shown = shown.slice(0, first);
      tbody.replaceChildren(...shown.map((row) => make("tr", {}, columns.map((column, at) =>
        make(at ? "td" : "th", { scope: at ? null : "row", class: column.n ? "n" : column.cell || null }, column.show(row))))));
      said.textContent = found > shown.length ? `${count(shown.length)} of ${count(found)}` : state.text ? plural(found, "row") : "";
      more.hidden = found <= first;
      more.textContent = state.all ? "Show fewer" : `Show all ${count(found)}`;
    }
    draw();
    const tools = filter ? make("label", { class: "tools" }, "Filter ",
      make("input", { type: "search", autocomplete: "off", input: (event) => { state.text = event.target.value.trim().toLowerCase(); draw(); } })) : null;
    const head = make("thead", {}, make("tr", {}, heads));
    return make("div", {}, tools,
      make("div", { class: "wide" }, make("table", {}, caption ? make("caption", {}, caption) : null, head, tbody)),
      make("div", { class: "tools" }, more, said));
  }

  // ---- size --------------------------------------------------------------------------------------

  // Bruls, Huizing, van Wijk: Squarified Treemaps (2000). items: {size}, largest first.
  function squarify(items, x, y, width, height, place) {
    let total = items.reduce((sum, item) => sum + item.size, 0);
    let at = 0;
    while (at < items.length && total > 0 && width > 0 && height > 0) {
      const scale = (width * height) / total;
      const side = Math.min(width, height);
      let end = at, sum = 0, worst = Infinity;
      while (end < items.length) {
        const next = sum + items[end].size * scale;
        const ratio = Math.max((side * side * items[at].size * scale) / (next * next), (next * next) / (side * side * items[end].size * scale));
        if (ratio > worst) break;
        worst = ratio; sum = next; end += 1;
      }
      const thick = sum / side;
      let along = 0;
      for (; at < end; at += 1) {
        const long = (items[at].size * scale) / thick;
        if (width >= height) place(items[at], x, y + along, thick, long);
        else place(items[at], x + along, y, long, thick);
        along += long; total -= items[at].size;
      }
      if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
    }
  }

  function grouped(software, area) {
    const total = software.reduce((sum, item) => sum + item.size, 0);
    const groups = Object.keys(data.managers).map((manager) => {
      const all = software.filter((item) => item.manager === manager && item.size > 0);
      const kept = all.filter((item) => (item.size / total) * area >= 200);
      const rest = all.slice(kept.length);
      const left = rest.reduce((sum, item) => sum + item.size, 0);
      if (left) kept.push({ name: `${count(rest.length)} smaller`, manager, size: left, rest: rest.length });
      kept.sort((a, b) => b.size - a.size);
      return { manager, items: kept, size: all.reduce((sum, item) => sum + item.size, 0) };
    });
    return groups.filter((group) => group.size).sort((a, b) => b.size - a.size);
  }

  function describe(item) {
    const total = image.total;
    const told = item.rest ? `${item.name} packages` : `${item.name} ${item.version}`.trim();
    return `${told}, ${size(item.size)}, ${share(item.size, total)}, ${data.managers[item.manager]}`;
  }

  function drawTreemap() {
    const map = byId("treemap");
    const { clientWidth: width, clientHeight: height } = map;
    map.replaceChildren();
    squarify(grouped(image.software, width * height), 0, 0, width, height, (group, gx, gy, gw, gh) =>
      squarify(group.items, gx + 1, gy + 1, gw - 2, gh - 2, (item, x, y, w, h) => {
        const box = make("button", { class: `box ${item.manager}`, type: "button", tabindex: "-1", "aria-label": describe(item), title: describe(item) });
        Object.assign(box.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
        if (w > 34 && h > 20) box.append(named(item.name, "span"));
        if (w > 48 && h > 40) box.append(make("span", { class: "amount" }, size(item.size)));
        if (w <= 34 || h <= 20) box.style.padding = "0";
        box.dataset.name = item.rest ? "" : item.name;
        box.addEventListener("click", () => (item.rest ? tell(item) : choose(item.name, item.manager)));
        box.addEventListener("focus", () => { rove(map, box); tell(item); });
        map.append(box);
      }));
    if (map.firstChild) map.firstChild.tabIndex = 0;
    markChosen();
  }

  function rove(group, box) {
    for (const other of group.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    box.tabIndex = 0;
  }

  // The nearest box in the direction of an arrow key.
  function walk(event) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const here = event.target.closest(".box");
    if (!here) return;
    const boxes = [...event.currentTarget.querySelectorAll(".box")];
    let best = null, least = Infinity;
    if (event.key === "Home") best = boxes[0];
    else if (event.key === "End") best = boxes[boxes.length - 1];
    else if (direction) {
      const from = here.getBoundingClientRect();
      for (const box of boxes) {
        const to = box.getBoundingClientRect();
        const gap = direction[0] ? (direction[0] > 0 ? to.left - from.right : from.left - to.right)
          : (direction[1] > 0 ? to.top - from.bottom : from.top - to.bottom);
        const aside = direction[0] ? Math.max(0, Math.max(from.top - to.bottom, to.top - from.bottom) + 3) : Math.max(0, Math.max(from.left - to.right, to.left - from.right) + 3);
        const off = direction[0] ? Math.abs(to.top - from.top) : Math.abs(to.left - from.left);
        if (box === here || gap < -4) continue;
        const far = gap + 20 * aside + off / 10;
        if (far < least) { least = far; best = box; }
      }
    } else return;
    event.preventDefault();
    if (best) best.focus();
  }

  function tell(item) {
    byId("chosen").replaceChildren(make("b", {}, named(item.name)), " ", named(item.version || ""), " · ",
      `${size(item.size)}, ${share(item.size, image.total)} of what is inside`,
      item.files ? ` · ${plural(item.files, "file")}` : "", ` · ${data.managers[item.manager]}`,
      item.license ? make("span", {}, " · ", named(item.license)) : "",
      item.summary ? make("span", { class: "soft" }, make("br"), named(item.summary)) : "");
  }

  function markChosen() {
    for (const box of document.querySelectorAll("#treemap .box"))
      box.setAttribute("aria-current", String(Boolean(chosen) && box.dataset.name === chosen));
  }

  function drawSize() {
    const inPackages = image.software.filter((item) => item.manager !== "other");
    byId("size-text").textContent = image.software.length
      ? `${size(image.total)} unpacked in ${plural(image.files, "file")}, ${size(image.size)} as one file. `
        + `${plural(inPackages.length, "package")}; areas are unpacked sizes.`
      : "The files of this image could not be read.";
    byId("legend").replaceChildren(...Object.entries(data.managers).map(([manager, text]) => {
      const sum = image.software.filter((item) => item.manager === manager).reduce((all, item) => all + item.size, 0);
      return sum ? make("li", {}, make("i", { class: manager }), `${text} ${size(sum)}`) : null;
    }).filter(Boolean));
    drawTreemap();
    const packages = byId("packages");
    if (!image.software.length) { packages.replaceChildren(); return; }
    packages.replaceChildren(table("All packages, and files of none by folder", [
      { head: "Package", value: (row) => row.name.toLowerCase(), show: (row) => [make("i", { class: `dot ${row.manager}` }),
        image.known.has(row.name) && row.manager !== "other" && row.manager !== "system"
          ? make("button", { class: "quiet", type: "button", click: () => choose(row.name, row.manager, true) }, named(row.name)) : named(row.name)] },
      { head: "Version", cell: "short", show: (row) => named(row.version) },
      { head: "Size", n: true, value: (row) => row.size, show: (row) => size(row.size) },
      { head: "Share", n: true, show: (row) => share(row.size, image.total) },
      { head: "Files", n: true, value: (row) => row.files, show: (row) => count(row.files) },
      { head: "Licence", value: (row) => row.license.toLowerCase(), cell: "long", show: (row) => named(row.license) },
      { head: "Whose", show: (row) => data.managers[row.manager] },
    ], image.software, { first: 12, sort: 2, filter: (row) => `${row.name} ${row.version} ${row.license}` }));
  }

  // ---- why ---------------------------------------------------------------------------------------

  function prepare(one) {
    one.total = one.software.reduce((sum, item) => sum + item.size, 0);
    one.files = one.software.reduce((sum, item) => sum + item.files, 0);
    one.known = new Map(one.software.filter((item) => item.manager !== "system" && item.manager !== "other").map((item) => [item.name, item]));
    one.down = new Map([...one.known.keys()].map((name) => [name, []]));
    one.up = new Map([...one.known.keys()].map((name) => [name, []]));
    one.roots = Object.keys(one.asked).filter((name) => one.known.has(name));
    if (!one.roots.length) one.roots = one.loose.filter((name) => one.known.has(name));
    for (const [source, target, wish] of one.edges) {
      if (!one.known.has(source) || !one.known.has(target)) continue; // a list that was cut
      one.down.get(source).push([target, wish]);
      one.up.get(target).push([source, wish]);
    }
  }

  function reach(starts, without) {
    const seen = new Set(starts.filter((name) => name !== without));
    const queue = [...seen];
    while (queue.length) for (const [target] of image.down.get(queue.pop()) || []) {
      if (!seen.has(target) && target !== without) { seen.add(target); queue.push(target); }
    }
    return seen;
  }

  function ways(name) {
    const came = new Map([[name, null]]);
    const queue = [name];
    for (let at = 0; at < queue.length; at += 1) for (const [source] of image.up.get(queue[at])) {
      if (!came.has(source)) { came.set(source, queue[at]); queue.push(source); }
    }
    return image.roots.filter((root) => came.has(root)).map((root) => {
      const way = [root];
      while (came.get(way[way.length - 1])) way.push(came.get(way[way.length - 1]));
      return way;
    }).sort((a, b) => a.length - b.length);
  }

  function drawWhy() {
    const place = body("why");
    if (!image.known.size) { place.replaceChildren(make("p", {}, "No packages of pip or conda were found in this image.")); return; }
    const sum = (names) => [...names].reduce((all, name) => all + image.known.get(name).size, 0);
    const rows = image.roots.map((name) => {
      const all = reach([name]);
      const others = reach(image.roots.filter((other) => other !== name));
      const only = [...all].filter((one) => !others.has(one));
      return { name, wish: image.asked[name] || "", all: all.size, size: sum(all), only: only.length, onlySize: sum(only) };
    });
    const asked = Object.keys(image.asked).length > 0;
    const options = make("datalist", { id: "names" }, [...image.known.keys()].sort().map((name) => make("option", { value: name })));
    const input = make("input", { list: "names", id: "package", autocomplete: "off", change: (event) => {
      if (image.known.has(event.target.value.trim())) choose(event.target.value.trim(), "");
    } });
    place.replaceChildren(
      make("p", {}, asked ? "What the recipe asks for, and what each brings with it. “Only” is what would go if it went."
        : "What was asked for is not known of this image. These packages are required by no other."),
      table("", [
        { head: "Package", value: (row) => row.name, show: (row) => make("button", { class: "quiet", type: "button", click: () => choose(row.name, "") }, named(row.name)) },
        { head: "Asked for", show: (row) => named(row.wish || "any version") },
        { head: "Brings", n: true, value: (row) => row.all, show: (row) => plural(row.all, "package") },
        { head: "Size", n: true, value: (row) => row.size, show: (row) => size(row.size) },
        { head: "Only", n: true, value: (row) => row.onlySize, show: (row) => `${count(row.only)}, ${size(row.onlySize)}` },
      ], rows, { first: 12, sort: 3 }),
      make("label", { class: "tools", for: "package" }, "Why is this package there: ", input), options,
      make("div", { id: "answer", "aria-live": "polite" }));
    drawAnswer();
  }

  function drawAnswer() {
    const answer = byId("answer");
    if (!answer) return;
    const name = chosen && image.known.has(chosen) ? chosen : image.roots[0] || [...image.known.keys()][0];
    const found = ways(name);
    const lead = Object.hasOwn(image.asked, name) ? "The recipe asks for it." : found.length
      ? `It is there for ${plural(found.length, "package")} ${Object.keys(image.asked).length ? "that the recipe asks for" : "that no other requires"}.`
      : "Nothing that is installed requires it.";
    const list = (title, edges) => make("div", {}, make("h3", {}, `${title} (${edges.length})`),
      make("ul", { class: "plain" }, edges.map(([other, wish]) => make("li", {},
        make("button", { class: "quiet", type: "button", click: () => choose(other, "") }, named(other)), " ", make("span", { class: "soft" }, named(wish))))),
      edges.length ? null : make("p", { class: "soft" }, "none"));
    const { up, down } = image;
    answer.replaceChildren(make("h3", {}, named(name), " ", named(image.known.get(name).version)), make("p", {}, lead),
      make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `Ways to ${name}, as a drawing; the lists below say the same` }, graph(name, found)),
      make("div", { class: "columns" }, list("Needed by", up.get(name)), list("Needs", down.get(name))));
  }

  // Columns from what was asked for (left) over the shortest ways to the package, and what it needs.
  function graph(name, found) {
    const level = new Map([[name, 0]]), links = new Map();
    for (const way of found.slice(0, 8)) way.forEach((one, at) => {
      level.set(one, Math.min(level.get(one) ?? 0, at - way.length + 1));
      if (at) links.set(`${way[at - 1]}\n${one}`, [way[at - 1], one]);
    });
    const needs = image.down.get(name).map(([target]) => target).sort((a, b) => image.known.get(b).size - image.known.get(a).size);
    const more = needs.length > 10 ? needs.length - 9 : 0;
    for (const target of needs.slice(0, more ? 9 : 10)) if (!level.has(target)) {
      level.set(target, 1);
      links.set(`${name}\n${target}`, [name, target]);
    }
    const columns = new Map();
    for (const [one, at] of level) columns.set(at, [...(columns.get(at) || []), one]);
    if (more) columns.get(1).push("");
    const [w, h, gx, gy] = [150, 28, 56, 8];
    const order = [...columns.keys()].sort((a, b) => a - b);
    const tallest = Math.max(...[...columns.values()].map((column) => column.length));
    const height = tallest * (h + gy) + 4, width = order.length * (w + gx) - gx + 4;
    const spot = new Map();
    order.forEach((at, column) => columns.get(at).forEach((one, row, all) =>
      spot.set(one, [2 + column * (w + gx), 2 + row * (h + gy) + ((tallest - all.length) * (h + gy)) / 2])));
    const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group" });
    for (const [source, target] of links.values()) {
      const [[sx, sy], [tx, ty]] = [spot.get(source), spot.get(target)];
      svg.append(drawn("path", { d: `M${sx + w} ${sy + h / 2}C${sx + w + gx / 2} ${sy + h / 2} ${tx - gx / 2} ${ty + h / 2} ${tx} ${ty + h / 2}` }));
    }
    for (const [one, [x, y]] of spot) {
      if (!one) { svg.append(drawn("text", { x: x + 8, y: y + 18, class: "wish" }, `${more} more`)); continue; }
      const short = one.length > 18 ? `${one.slice(0, 17)}…` : one;
      const pick = (event) => { if (event.type === "click" || event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(one, ""); } };
      svg.append(drawn("g", { role: "button", tabindex: "0", class: one === name ? "here" : "", "aria-label": one, click: pick, keydown: pick },
        drawn("title", {}, one),
        drawn("rect", { x, y, width: w, height: h, rx: 5, class: image.known.get(one).manager }),
        drawn("text", { x: x + 8, y: y + 19 }, short)));
    }
    return svg;
  }

  function choose(name, manager, jump) {
    const item = image.software.find((one) => one.name === name && (!manager || one.manager === manager));
    if (!item) return;
    tell(item);
    chosen = name;
    markChosen();
    if (image.known.has(name)) drawAnswer();
    if (jump) byId("why").scrollIntoView();
  }

  // ---- import time -------------------------------------------------------------------------------

  function drawImports() {
    const place = body("imports"), told = image.imports;
    if (!told) { place.replaceChildren(make("p", {}, "It was not measured: the image was not started.")); return; }
    const parts = [make("p", {}, "Of ", make("code", {}, named(told.statement)), `: ${ms(told.total)} in ${plural(told.count, "import")}. `
      + `The whole start took ${told.wall.toFixed(2)} s, the one before it ${told.first.toFixed(2)} s.`)];
    if (told.failure) parts.push(make("p", { class: "warning" }, "It also wrote:"), make("pre", {}, named(told.failure)));
    if (told.spans.length) {
      const crumb = make("div", { class: "tools" });
      const flame = make("div", { class: "flame", role: "group", "aria-label": "Imports as bars, each above those that it brings. Arrow keys move, Enter enlarges, Escape goes back. The table below has the slowest." });
      flame.addEventListener("keydown", (event) => { if (event.key === "Escape") zoom(null); else walk(event); });
      const zoom = (span) => { drawFlame(flame, crumb, told, span, zoom); const first = flame.querySelector(".box"); if (span !== undefined && first) first.focus(); };
      parts.push(crumb, flame);
      place.replaceChildren(...parts);
      zoom(undefined);
    } else place.replaceChildren(...parts);
    const slow = told.spans.slice().sort((a, b) => b[3] - a[3]).slice(0, 200);
    if (slow.length) place.append(table("Modules by their own time, without what they import", [
      { head: "Module", value: (row) => row[0], show: (row) => named(row[0]) },
      { head: "Own", n: true, value: (row) => row[3], show: (row) => ms(row[3]) },
      { head: "With its imports", n: true, value: (row) => row[2], show: (row) => ms(row[2]) },
    ], slow, { first: 8, sort: 1 }));
  }

  function drawFlame(flame, crumb, told, top, zoom) {
    const [from, whole, level] = top ? [top[1], top[2], top[4]] : [0, told.total, 0];
    const back = make("button", { class: "button", type: "button", click: () => zoom(null) }, "Show all");
    crumb.replaceChildren(...(top ? [back, make("span", {}, named(top[0]), ` ${ms(top[2])}`)] : []));
    const hues = new Map();
    const shows = 3400 / (flame.clientWidth || 1000); // from this share on a name can be read
    let deepest = 0;
    flame.replaceChildren();
    for (const span of told.spans) {
      const [module, start, total, own, depth] = span;
      const width = (100 * total) / whole;
      if (depth < level || start < from || start + total > from + whole + 1 || width < 0.25) continue;
      const package_ = module.split(".")[0];
      if (!hues.has(package_)) hues.set(package_, hues.size % 5);
      const text = `${module}, ${ms(total)}, ${share(total, told.total)}; its own ${ms(own)}`;
      const box = make("button", { class: `box f${hues.get(package_)}`, type: "button", tabindex: "-1", "aria-label": text, title: text, click: () => zoom(span) }, width > shows ? named(module, "span") : "");
      Object.assign(box.style, { left: `${(100 * (start - from)) / whole}%`, width: `${width}%`, top: `${(depth - level) * 21}px` });
      if (width <= shows) box.style.padding = "0";
      box.addEventListener("focus", () => rove(flame, box));
      deepest = Math.max(deepest, depth - level);
      flame.append(box);
    }
    flame.style.height = `${(deepest + 1) * 21 + 2}px`;
    if (flame.firstChild) flame.firstChild.tabIndex = 0;
  }

  // ---- the rest ----------------------------------------------------------------------------------

  function drawFindings() {
    const place = body("findings"), { findings } = image;
    if (findings === null) { place.replaceChildren(make("p", {}, "Nothing could be checked.")); return; }
    if (!findings.length) { place.replaceChildren(make("p", {}, "Nothing was found that needs attention.")); return; }
    place.replaceChildren(...findings.map((one) => make("article", { class: `finding ${one.severity}` },
      make("span", { class: "tag" }, one.severity.toUpperCase(), " "), make("code", { class: "soft" }, named(one.code)),
      make("h3", {}, named(one.what)),
      one.cause ? make("p", {}, named(one.cause)) : null,
      one.evidence.length ? make("pre", {}, named(one.evidence.join("\n"))) : null,
      one.cure ? [make("p", { class: "soft" }, "What helps:"), make("pre", {}, named(one.cure))] : null)));
  }

  function drawLicences() {
    const groups = new Map();
    for (const item of image.known.values()) groups.set(item.license, [...(groups.get(item.license) || []), item.name]);
    const rows = [...groups].map(([license, names]) => ({ license, names: names.sort() })).sort((a, b) => b.names.length - a.names.length);
    const none = groups.get("") || [];
    body("licences").replaceChildren(
      make("p", {}, image.known.size ? `As the packages of pip and conda state them. ${none.length ? plural(none.length, "package states", "packages state") + " none." : "All state one."}` : "No packages of pip or conda were found."),
      rows.length ? table("", [
        { head: "Licence", cell: "long", value: (row) => row.license.toLowerCase(), show: (row) => row.license ? named(row.license) : make("span", { class: "warning" }, "none stated") },
        { head: "Packages", n: true, value: (row) => row.names.length, show: (row) => count(row.names.length) },
        { head: "Which", cell: "long", show: (row) => named(row.names.join(", ")) },
      ], rows, { first: 20, sort: 1 }) : "");
  }

  function drawLayers() {
    const rows = Object.entries(data.managers).map(([manager, text]) => {
      const items = image.software.filter((item) => item.manager === manager);
      return { manager, text, size: items.reduce((sum, item) => sum + item.size, 0), files: items.reduce((sum, item) => sum + item.files, 0) };
    }).filter((row) => row.files);
    const bar = make("div", { class: "bar", role: "img", "aria-label": rows.map((row) => `${row.text} ${size(row.size)}`).join(", ") },
      rows.map((row) => { const part = make("i", { class: row.manager, title: `${row.text} ${size(row.size)}` }); part.style.flexGrow = row.size; return part; }));
    body("layers").replaceChildren(
      rows.length ? bar : "",
      rows.length ? table("What is inside, by who put it there", [
        { head: "Whose", show: (row) => [make("i", { class: `dot ${row.manager}` }), row.text] },
        { head: "Unpacked", n: true, show: (row) => size(row.size) },
        { head: "Files", n: true, show: (row) => count(row.files) },
      ], rows) : "",
      image.layers.length ? table("File systems, lowest first", [
        { head: "File system", show: (row) => named(row.name) },
        { head: "In the image", n: true, show: (row) => size(row.packed_bytes) },
        { head: "Unpacked", n: true, show: (row) => size(row.size_bytes) },
        { head: "Files", n: true, show: (row) => count(row.files) },
      ], image.layers) : "",
      image.parts.length ? table("Objects in the SIF", [
        { head: "Name", show: (row) => named(row[0] || "unnamed") },
        { head: "Kind", show: (row) => named(row[1]) },
        { head: "Size", n: true, show: (row) => size(row[2]) },
      ], image.parts) : "");
  }

  function drawFacts() {
    body("facts").replaceChildren(table("", [
      { head: "What", show: (row) => named(row[0]) }, { head: "Value", show: (row) => named(row[1], "bdi") },
    ], image.facts, { first: 60 }));
  }

  function drawDifference() {
    const told = data.difference;
    if (!told) return;
    byId("difference").hidden = false;
    const sign = { added: "+ added", removed: "− removed", changed: "~ changed", resized: "other files" };
    const kinds = Object.keys(sign).map((kind) => [kind, told.changes.filter((one) => one.kind === kind).length]).filter(([, number]) => number);
    body("difference").replaceChildren(
      make("p", {}, "From ", named(told.before, "code"), " to ", named(told.after, "code"), "."),
      make("p", {}, `The file ${signed(size(told.image_bytes), told.image_bytes)}, unpacked ${signed(size(told.size_bytes), told.size_bytes)}, `
        + `${signed(plural(told.files, "file"), told.files)}. ` + (kinds.map(([kind, number]) => `${count(number)} ${kind === "resized" ? "with other files" : kind}`).join(", ") || "The packages are the same") + "."),
      told.settings.length ? table("What they are made from, and how they start", [
        { head: "What", show: (row) => named(row.name) }, { head: "Before", show: (row) => named(row.before || "—") }, { head: "After", show: (row) => named(row.after || "—") },
      ], told.settings) : "",
      told.changes.length ? table("Packages", [
        { head: "Package", value: (row) => row.name.toLowerCase(), show: (row) => [make("i", { class: `dot ${row.manager}` }), named(row.name)] },
        { head: "Change", value: (row) => row.kind, show: (row) => make("span", { class: `tag ${row.kind}` }, sign[row.kind]) },
        { head: "Before", cell: "short", show: (row) => named(row.before || "—") },
        { head: "After", cell: "short", show: (row) => named(row.after || "—") },
        { head: "Size", n: true, value: (row) => row.size_bytes, show: (row) => signed(size(row.size_bytes), row.size_bytes) },
        { head: "Files", n: true, value: (row) => row.files, show: (row) => signed(count(row.files), row.files) },
        { head: "Licence", cell: "long", show: (row) => row.kind === "added" || row.kind === "removed" || row.license_before === row.license_after ? named(row.license_after || row.license_before) : [named(row.license_before || "none"), " → ", named(row.license_after || "none")] },
      ], told.changes, { first: 30, filter: (row) => row.name }) : "");
  }

  function draw() {
    document.title = `${image.title} – image report`;
    byId("title").textContent = image.title;
    byId("path").textContent = image.path;
    byId("notes").replaceChildren(...image.notes.map((note) => make("p", { class: "warning" }, named(note))));
    const environment = [...image.known.values()];
    byId("key").replaceChildren(...[
      ["File", size(image.size)], ["Unpacked", image.total ? size(image.total) : ""], ["Packages", environment.length ? count(environment.length) : ""],
      ["Python", image.python], ["Base", image.base], ["Imports", image.imports && image.imports.total ? ms(image.imports.total) : ""],
    ].filter(([, value]) => value).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, named(value)))));
    byId("chosen").replaceChildren(make("span", { class: "soft" }, "Choose an area, or a name below, to see what it is and why it is there."));
    drawFindings(); drawSize(); drawWhy(); drawImports(); drawLicences(); drawLayers(); drawFacts();
  }

  data.images.forEach((one) => { image = one; prepare(one); });
  image = data.images[0];
  const sections = [...document.querySelectorAll("main > section")];
  drawDifference();
  byId("sections").replaceChildren(...sections.filter((one) => !one.hidden).map((one) => make("li", {}, make("a", { href: `#${one.id}` }, one.querySelector("h2").textContent))));
  if (data.images.length > 1) {
    const chooser = byId("chooser");
    chooser.hidden = false;
    data.images.forEach((one, at) => chooser.append(make("button", { type: "button", "aria-pressed": String(!at), click: (event) => {
      image = one; chosen = "";
      for (const button of chooser.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      draw();
    } }, `${at ? "After" : "Before"}: `, named(one.title))));
  }
  byId("made").textContent = `Made by limpet ${data.limpet} from the image's own files. Sizes are unpacked unless said otherwise; 1 MB is 10⁶ bytes.`;
  byId("treemap").addEventListener("keydown", walk);
  draw();
  let width = byId("treemap").clientWidth;
  new ResizeObserver(() => {
    const now = byId("treemap").clientWidth;
    if (now !== width) { width = now; drawTreemap(); }
  }).observe(byId("treemap"));
})();
