// The device page's charts: uPlot with joined cursors, a marker at every swap, colours from the style sheet.
(() => {
  "use strict";
  const section = document.getElementById("charts");
  if (!section || !window.uPlot) return;
  const holders = [...section.querySelectorAll(".chart")];
  const cursors = uPlot.sync("device");
  const colours = ["--line1", "--line2", "--line3"];
  let data = null;
  let plots = [];

  const css = (name) => {
    // light-dark() resolves only on a real property
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    section.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };
  const digits = (value) => (Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0);
  const texts = {
    ms: (value) => `${value.toFixed(digits(value))} ms`,
    share: (value) => `${(100 * value).toFixed(1)} %`,
    MB: (value) => `${value.toFixed(digits(value))} MB`,
    "/s": (value) => `${value.toFixed(digits(value))}/s`,
  };
  const text = (unit, value) => (value == null ? "–" : texts[unit] ? texts[unit](value) : `${value.toPrecision(3)} ${unit}`);

  // tick formats by the tick's width in seconds: its own text, then what a new year, month, day adds below it
  const day = "\n{MM}-{DD}";
  const clock = [
    [86400 * 365, "{YYYY}", null, null, null, null, null, null, 1],
    [86400 * 28, "{MM}", "\n{YYYY}", null, null, null, null, null, 1],
    [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
    [60, "{HH}:{mm}", day, null, day, null, null, null, 1],
    [1, "{HH}:{mm}:{ss}", day, null, day, null, null, null, 1],
  ];

  // a dashed line and the version's number where the device changed over
  const swaps = () => ({
    hooks: {
      draw: (plot) => {
        const { ctx, bbox } = plot;
        const ratio = devicePixelRatio;
        let free = -Infinity;
        ctx.save();
        ctx.font = `600 ${11 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
        ctx.textBaseline = "middle";
        ctx.textAlign = "left";
        for (const swap of data.swaps) {
          if (swap.t < plot.scales.x.min || swap.t > plot.scales.x.max) continue;
          const x = Math.round(plot.valToPos(swap.t, "x", true));
          const colour = css(swap.kind === "revert" ? "--warn" : "--accent");
          const label = swap.kind === "revert" ? `↩ v${swap.version}` : `v${swap.version}`;
          const width = ctx.measureText(label).width + 10 * ratio;
          ctx.strokeStyle = colour;
          ctx.lineWidth = ratio;
          ctx.setLineDash([3 * ratio, 3 * ratio]);
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
          const left = Math.min(Math.max(x - width / 2, bbox.left), bbox.left + bbox.width - width);
          if (left < free) continue; // labels never cover each other; the line stays
          free = left + width + 2 * ratio;
          ctx.setLineDash([]);
          ctx.fillStyle = colour;
          ctx.beginPath();
          ctx.roundRect(left, bbox.top - 15 * ratio, width, 15 * ratio, 4 * ratio);
          ctx.fill();
          ctx.fillStyle = css("--card");
          ctx.fillText(label, left + 5 * ratio, bbox.top - 7 * ratio);
        }
        ctx.restore();
      },
    },
  });

  const range = (unit) => (_plot, low, high) => {
    if (low == null) return [0, 1];
    if (unit === "share") {
      const room = Math.max(0.005, (high - low) * 0.15);
      return [Math.max(0, low - room), Math.min(1, high + room)];
    }
    return [0, high * 1.12 || 1];
  };

  const options = (holder, lines, unit) => {
    const tick = (value) => text(unit, value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
    const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: `12px ${getComputedStyle(section).fontFamily}` };
    return {
      width: holder.clientWidth,
      height: 210,
      padding: [18, 20, 0, 0],
      plugins: [swaps()],
      cursor: { sync: { key: cursors.key }, points: { size: 6 }, drag: { x: true, y: false } },
      legend: { live: true, markers: { width: 0, fill: (plot, i) => plot.series[i].stroke() } },
      scales: { x: { range: () => [data.start, data.end] }, y: { range: range(unit) } },
      axes: [
        { ...axis, space: 70, values: clock },
        { ...axis, size: 62, space: 34, values: (_plot, ticks) => ticks.map(tick) },
      ],
      series: [
        { label: "", value: (_plot, at) => (at == null ? "" : new Date(at * 1000).toLocaleString(document.documentElement.lang, { hour12: false })) },
        ...lines.map(([, label], i) => ({
          label,
          stroke: css(lines.length === 1 ? "--line2" : colours[i]),
          width: 1.75,
          points: { show: data.t.length < 3, size: 5 },
          spanGaps: false,
          value: (_plot, value) => text(unit, value),
        })),
      ],
    };
  };

  const draw = () => {
    plots.forEach((plot) => plot.destroy());
    plots = holders.map((holder) => {
      const lines = holder.dataset.lines.split(";").map((line) => line.split(/:(.*)/s));
      const columns = lines.map(([name]) => data[name]);
      holder.replaceChildren();
      const plot = new uPlot(options(holder, lines, holder.dataset.unit), [data.t, ...columns], holder);
      if (!columns.some((column) => column.some((value) => value != null))) {
        const note = document.createElement("p");
        note.className = "nothing";
        note.textContent = section.dataset.none;
        holder.append(note);
      }
      return plot;
    });
  };

  const update = async () => {
    const answer = await fetch(section.dataset.series, { headers: { accept: "application/json" } });
    if (!answer.ok) return;
    data = await answer.json();
    if (!plots.length || plots.some((plot, i) => !plot.root.isConnected || !holders[i].isConnected)) { draw(); return; }
    plots.forEach((plot, i) => {
      const names = holders[i].dataset.lines.split(";").map((line) => line.split(":")[0]);
      plot.setData([data.t, ...names.map((name) => data[name])]);
      holders[i].querySelector(".nothing")?.remove();
    });
  };

  let waiting = 0;
  const redraw = () => { clearTimeout(waiting); waiting = setTimeout(() => { if (data) draw(); }, 60); };
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(() => {
    plots.forEach((plot, i) => {
      const width = holders[i].clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: plot.height });
    });
  }).observe(section);
  document.addEventListener("wavegate:tick", update);
  update();
})();
