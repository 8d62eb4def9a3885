"use strict";
// One filter for the whole page: what is chosen on the axes, by status and by words decides which trials pass.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const count = data.numbers.length, all = [...Array(count).keys()];
  const byNumber = new Map(data.numbers.map((number, place) => [number, place]));
  const table = document.getElementById("trials");
  const rows = [...table.tBodies[0].rows];
  const lines = document.getElementById("lines");
  const boxes = [...document.querySelectorAll("fieldset[data-axis]")];
  const clear = document.getElementById("clear");
  let passes = all.map(() => true);

  // ---- what passes
  const chosen = (box) => new Set([...box.querySelectorAll("input:checked")].map((input) => Number(input.value)));
  const range = (box) => [".from", ".to"].map((end) => Number(box.querySelector(end).value) / 1000);
  const narrowed = (box, axis) => axis.choice
    ? box.querySelector("input:not(:checked)") !== null
    : range(box)[0] > 0 || range(box)[1] < 1;
  const bar = filtering(document.getElementById("filter"), rows, () => update());
  const decide = () => {
    const tests = [];
    boxes.forEach((box, index) => {
      const axis = data.axes[index];
      if (!narrowed(box, axis)) return;
      if (axis.choice) {
        const kept = chosen(box);
        tests.push((place) => kept.has(axis.choice[place]));
      } else {
        const [from, to] = range(box);
        // A hair wider, for what lies on the end itself; a trial without a value is outside every range.
        tests.push((place) => axis.places[place] !== null
          && axis.places[place] >= from - 1e-5 && axis.places[place] <= to + 1e-5);
      }
    });
    tests.push(...bar.tests());
    passes = all.map((place) => tests.every((test) => test(place)));
    if (clear) clear.disabled = tests.length === 0;
    return tests.length > 0;
  };

  // ---- the lines, grouped by colour into few traces with gaps: a trace a trial would take seconds to draw
  const jitter = (number) => (number * 0.6180339887) % 1 - 0.5;
  const lineOf = (place, into) => {
    data.axes.forEach((axis, index) => {
      const at = axis.places[place];
      into.x.push(at === null ? null : index);
      into.y.push(at === null ? null : at + axis.breadth * jitter(data.numbers[place]));
    });
    into.x.push(null);
    into.y.push(null);
  };
  const lineTraces = () => {
    const groups = [...data.colours.map(() => []), [], []];
    const grey = data.colours.length, out = grey + 1;
    for (const place of all) groups[!passes[place] ? out : data.fifths[place] === null ? grey : data.fifths[place]].push(place);
    const many = data.thin, thinner = many ? 0.5 : 1;
    const trace = (places, color, width, opacity) => {
      const found = {type: "scatter", mode: "lines", x: [], y: [], line: {color, width: width * thinner, simplify: false}, opacity, hoverinfo: "none"};
      for (const place of places) lineOf(place, found);
      found.places = places;
      return found;
    };
    // What does not pass lies at the bottom, the best at the top.
    return [
      trace(groups[out], data.grey, 0.6, many ? 0.07 : 0.15),
      trace(groups[grey], data.grey, 1.2, 0.7),
      ...data.colours.map((color, fifth) => trace(groups[fifth], color, fifth === 4 ? 2 : 1.2, 0.8)),
    ];
  };
  let drawn = [];
  const drawLines = () => {
    if (!lines) return;
    drawn = lineTraces();
    Plotly.react(lines, drawn, lines.layout, shown);
  };

  // ---- the other charts: those out of sight wait until they are seen
  const others = charts.filter((chart) => chart !== lines);
  const stale = new Set(), visible = new Set();
  const refresh = (chart) => {
    stale.delete(chart);
    const everything = passes.every(Boolean), indices = [], selected = [];
    chart.data.forEach((trace, index) => {
      if (trace.meta && trace.meta.filter) {
        const kept = [];
        trace.customdata.forEach((number, point) => { if (passes[byNumber.get(number)]) kept.push(point); });
        indices.push(index);
        selected.push(everything ? null : kept);
      }
    });
    // One call for all traces: each draws the whole chart.
    if (indices.length) Plotly.restyle(chart, {selectedpoints: selected}, indices);
    cut(chart);
    const line = chart.data.findIndex((trace) => trace.meta && trace.meta.best);
    if (line < 0) return;
    const points = chart.data[0], sign = chart.data[line].meta.best, x = [], y = [];
    let best = null;
    points.customdata.forEach((number, point) => {
      if (!passes[byNumber.get(number)]) return;
      best = best === null || sign * points.y[point] > sign * best ? points.y[point] : best;
      x.push(points.x[point]);
      y.push(best);
    });
    Plotly.restyle(chart, {x: [x], y: [y]}, [line]);
  };
  // Lines through many trials are cut down to those that pass; whole, they are kept here.
  const whole = new Map();
  const cut = (chart) => {
    const indices = [], x = [], y = [], customdata = [];
    chart.data.forEach((trace, index) => {
      if (!(trace.meta && trace.meta.lines)) return;
      const key = `${charts.indexOf(chart)} ${index}`;
      if (!whole.has(key)) whole.set(key, {x: trace.x, y: trace.y, of: trace.customdata});
      const {of, ...kept} = whole.get(key);
      const points = of.map((_, point) => point).filter((point) => passes[byNumber.get(of[point])]);
      indices.push(index);
      x.push(points.map((point) => kept.x[point]));
      y.push(points.map((point) => kept.y[point]));
      customdata.push(points.map((point) => of[point]));
    });
    if (indices.length) Plotly.restyle(chart, {x, y, customdata}, indices);
  };
  // A chart a turn, so that a hand that moves on is not kept waiting.
  let turn = 0;
  const inTurn = () => {
    const next = [...visible].find((chart) => stale.has(chart));
    turn = next ? setTimeout(inTurn, 0) : 0;
    if (next) refresh(next);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) visible.add(entry.target); else visible.delete(entry.target);
    }
    if (!turn) inTurn();
  }, {rootMargin: "200px"});
  others.forEach((chart) => watcher.observe(chart));

  const drawTable = () => rows.forEach((row, place) => { row.hidden = !passes[place]; });

  // ---- an update: words at once, lines with the next frame, the rest when the hand rests
  let frame = 0, rest = 0;
  const settle = () => {
    drawTable();
    for (const chart of others) stale.add(chart);
    if (!turn) inTurn();
  };
  const update = () => {
    const filtered = decide();
    const passing = passes.filter(Boolean).length;
    for (const id of ["passing", "count"]) {
      const told = document.getElementById(id);
      if (told) told.textContent = `${passing} of ${count} trials` + (filtered ? " pass" : "");
    }
    boxes.forEach(band);
    if (!frame) frame = requestAnimationFrame(() => { frame = 0; drawLines(); });
    clearTimeout(rest);
    rest = setTimeout(settle, 120);
  };

  // ---- values of a range, in words
  const valueAt = (index, share) => {
    const axis = data.axes[index], labels = boxes[index].querySelector("script");
    const texts = labels ? JSON.parse(labels.textContent) : [];
    if (texts.length) return texts[Math.min(texts.length - 1, Math.floor(share * texts.length))];
    const value = axis.log
      ? Math.exp(Math.log(axis.low) + share * (Math.log(axis.high) - Math.log(axis.low)))
      : axis.low * (1 - share) + axis.high * share;
    return String(Number(value.toPrecision(3))).replace("-", "−");
  };
  const spell = (index) => {
    for (const end of boxes[index].querySelectorAll("input[type=range]")) {
      const text = valueAt(index, Number(end.value) / 1000);
      end.nextElementSibling.textContent = text;
      end.setAttribute("aria-valuetext", text);
    }
  };
  boxes.forEach((box, index) => {
    spell(index);
    box.addEventListener("input", (event) => {
      const from = box.querySelector(".from"), to = box.querySelector(".to");
      if (from && Number(from.value) > Number(to.value)) {
        if (event.target === from) to.value = from.value; else from.value = to.value;
      }
      spell(index);
      update();
    });
  });

  // ---- brushing by mouse: a strip over each axis
  const strips = lines ? data.axes.map(() => {
    const strip = document.createElement("div");
    strip.className = "strip";
    strip.setAttribute("aria-hidden", "true");
    strip.append(document.createElement("i"));
    lines.parentElement.append(strip);
    return strip;
  }) : [];
  const inside = () => {
    const {margin, xaxis, yaxis} = lines.layout;
    const width = lines.clientWidth - margin.l - margin.r, height = lines.clientHeight - margin.t - margin.b;
    const across = (x) => margin.l + width * (x - xaxis.range[0]) / (xaxis.range[1] - xaxis.range[0]);
    const up = (y) => margin.t + height * (yaxis.range[1] - y) / (yaxis.range[1] - yaxis.range[0]);
    return {across, up};
  };
  const arrange = () => {
    const {across, up} = inside();
    strips.forEach((strip, index) => {
      Object.assign(strip.style, {
        left: `${across(index) - 11}px`, width: "22px", top: `${up(1) - 6}px`, height: `${up(0) - up(1) + 12}px`,
      });
    });
    boxes.forEach(band);
  };
  function band(box, index) {
    const axis = data.axes[index], mark = strips[index].firstChild;
    mark.style.display = narrowed(box, axis) ? "block" : "none";
    let [from, to] = [0, 1];
    if (axis.choice) {
      const kept = chosen(box), places = axis.places.filter((at, place) => kept.has(axis.choice[place]));
      if (!places.length) { mark.style.display = "none"; return; }
      [from, to] = [Math.min(...places) - axis.breadth / 2, Math.max(...places) + axis.breadth / 2];
    } else [from, to] = range(box);
    const height = strips[index].clientHeight - 12;
    mark.style.top = `${6 + (1 - to) * height}px`;
    mark.style.height = `${Math.max(4, (to - from) * height)}px`;
  }
  const select = (index, from, to) => {
    const box = boxes[index], axis = data.axes[index];
    if (axis.choice) {
      const kept = new Set(axis.choice.filter((choice, place) =>
        axis.places[place] !== null && axis.places[place] >= from - 0.015 && axis.places[place] <= to + 0.015));
      for (const input of box.querySelectorAll("input")) input.checked = kept.size === 0 || kept.has(Number(input.value));
    } else {
      box.querySelector(".from").value = Math.round(from * 200) * 5;
      box.querySelector(".to").value = Math.round(to * 200) * 5;
      spell(index);
    }
    update();
  };
  strips.forEach((strip, index) => {
    let start = null;
    const share = (event) => {
      const seen = strip.getBoundingClientRect();
      return Math.min(1, Math.max(0, 1 - (event.clientY - seen.top - 6) / (seen.height - 12)));
    };
    strip.addEventListener("pointerdown", (event) => { start = share(event); strip.setPointerCapture(event.pointerId); });
    strip.addEventListener("pointermove", (event) => {
      const now = share(event);
      if (start !== null && Math.abs(now - start) > 0.01) select(index, Math.min(start, now), Math.max(start, now));
    });
    strip.addEventListener("pointerup", (event) => {
      // A click opens the axis again.
      if (start !== null && Math.abs(share(event) - start) <= 0.01) select(index, 0, 1);
      start = null;
    });
    strip.addEventListener("pointercancel", () => { start = null; });
  });

  // ---- back to all
  if (clear) clear.addEventListener("click", () => {
    for (const input of document.querySelectorAll("[data-axis] input[type=checkbox]")) input.checked = true;
    for (const end of document.querySelectorAll("input.from")) end.value = 0;
    for (const end of document.querySelectorAll("input.to")) end.value = 1000;
    bar.clear();
    boxes.forEach((box, index) => spell(index));
    update();
  });
  // ---- labels stand on the box's own colour, so that lines do not cross them out
  const tint = () => {
    const box = getComputedStyle(document.documentElement).getPropertyValue("--box").trim();
    Plotly.relayout(lines, Object.fromEntries(lines.layout.annotations.map((_, index) => [`annotations[${index}].bgcolor`, box])));
  };

  // ---- which trial is under the pointer
  const ready = () => {
    drawLines();
    tint();
    dark.addEventListener("change", tint);
    window.matchMedia("print").addEventListener("change", tint);
    arrange();
    new ResizeObserver(arrange).observe(lines);
    lines.on("plotly_hover", ({points: [point]}) => {
      const place = drawn[point.curveNumber].places[Math.floor(point.pointNumber / (data.axes.length + 1))];
      const headers = table.tHead.rows[0].cells;
      const cells = [...rows[place].cells].map((cell, column) => `${headers[column].textContent} ${cell.textContent}`);
      document.getElementById("over").textContent = cells.join(", ");
    });
    lines.on("plotly_unhover", () => { document.getElementById("over").textContent = ""; });
  };
  if (lines) ready();
  update();
})();
