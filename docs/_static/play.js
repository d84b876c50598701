// The live figures: controls, drawing, and the scrubber. What is drawn comes from Python (worker.js, play/walk.py): nothing of the rule is here.
const here = new URL('.', import.meta.url).href;
const MINUS = '\u2212';
const VARIANTS = ['rprop-', 'irprop-', 'rprop+', 'irprop+'];
const SURFACES = { twin: 'two bowls', bowl: 'a bowl', rosenbrock: 'Rosenbrock', plateau: 'plateau', noisy: 'a bowl with noise' };
const RIVALS = { gd: 'gradient descent', adam: 'Adam' };

// A slider runs over whole numbers; `value` turns its place into a setting. `only` names the surfaces that have it.
const linear = (low, high, by) => ({ places: Math.round((high - low) / by), value: (i) => Number((low + i * by).toFixed(6)) });
const powers = (low, high, each, zero = false) => ({
  places: (high - low) * each + (zero ? 1 : 0),
  value: (i) => (zero && i === 0 ? 0 : Number((10 ** (low + (i - (zero ? 1 : 0)) / each)).toPrecision(2))),
});
const SLIDERS = {
  condition: { label: 'stretch (condition number)', only: ['bowl', 'noisy'], ...powers(0, 4, 4) },
  degrees: { label: 'turn, in degrees', only: ['bowl', 'noisy'], ...linear(0, 45, 1) },
  noise: { label: 'noise in the gradient', only: ['noisy'], ...linear(0, 5, 0.25) },
  lr: { label: 'first step', ...powers(-4, 1, 4) },
  eta_minus: { label: 'eta\u2212, shrinks the step', ...linear(0.1, 0.95, 0.05) },
  eta_plus: { label: 'eta+, grows the step', ...linear(1.05, 3, 0.05) },
  floor: { label: 'smallest step', ...powers(-9, 0, 1, true) },
  steps: { label: 'steps drawn', ...linear(10, 200, 5) },
  gd: { label: 'its learning rate', rival: true, ...powers(-4, 2, 8) },
  adam: { label: 'its learning rate', rival: true, ...powers(-3, 1, 4) },
};
const FIRST_RATE = { gd: 0.01, adam: 0.1 };

const nearest = (slider, wanted) => {
  let best = 0;
  for (let i = 1; i <= slider.places; i += 1) {
    if (Math.abs(slider.value(i) - wanted) < Math.abs(slider.value(best) - wanted)) best = i;
  }
  return best;
};
const shown = (x) => (x === null ? 'not a finite number' : String(Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? Number(x.toPrecision(3)).toExponential() : Number(x.toPrecision(4))).replaceAll('-', MINUS));

// Python, started once for all figures of a page. Answers come in the order of the questions.
class Python {
  constructor() {
    this.waiting = new Map();
    this.count = 0;
    this.worker = new Worker(`${here}worker.js`, { type: 'module' });
    this.ready = new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => {
        if (data.ready) resolve();
        else if (data.id === undefined) reject(new Error(data.failed));
        else {
          const [done, fail] = this.waiting.get(data.id);
          this.waiting.delete(data.id);
          if (data.failed) fail(new Error(data.failed));
          else done(JSON.parse(data.answer));
        }
      };
      this.worker.onerror = (event) => reject(new Error(event.message));
    });
  }

  ask(config) {
    this.count += 1;
    const id = this.count;
    return new Promise((done, fail) => {
      this.waiting.set(id, [done, fail]);
      this.worker.postMessage({ id, question: JSON.stringify(config) });
    });
  }
}

class Figure {
  constructor(root, d3, python, name, figure, recorded) {
    Object.assign(this, { root, d3, python, name, figure });
    this.config = { ...recorded.config };
    this.at = Math.min(this.config.steps, 6);
    this.build();
    this.show(recorded, 'recorded');
    new ResizeObserver(() => this.draw()).observe(this.charts.node());
    python.ready.then(
      () => { this.live = true; this.ask(); },
      (error) => this.status.text(`Python did not start, so this stays a recorded walk: ${error.message}`),
    );
  }

  // the frame: status, charts, scrubber, sentence, controls
  build() {
    const { d3 } = this;
    const root = d3.select(this.root).attr('role', 'region').attr('aria-label', this.figure.title);
    root.text('');
    this.status = root.append('p').attr('class', 'status').attr('role', 'status').text('Python is starting; this is a recorded walk.');
    this.charts = root.append('div').attr('class', 'charts');
    const chart = (kind, role, label) => this.charts.append('div').attr('class', `chart ${kind}`).append('svg').attr('role', role).attr('aria-label', label).append('g');
    this.ground = chart('ground', 'group', 'The surface from above, the path on it, and the start, which can be moved');
    this.stepsChart = chart('steps', 'img', 'Step size of each weight at each step');
    this.errorChart = chart('error', 'img', 'Error at each step');
    this.buildRing(this.d3.select(this.ground.node().ownerSVGElement));
    this.buildScrubber(root);
    this.controls = root.append('div').attr('class', 'controls');
    this.figure.controls.forEach((name) => this.control(name));
  }

  buildScrubber(root) {
    const bar = root.append('div').attr('class', 'scrubber');
    const button = (text, label, act) => bar.append('button').attr('type', 'button').attr('aria-label', label).text(text).on('click', act);
    button('\u25C0', 'one step back', () => this.move(this.at - 1));
    this.player = button('\u25B6 play', 'play the steps', () => this.play());
    button('\u25B6', 'one step on', () => this.move(this.at + 1));
    const label = bar.append('label');
    this.counter = label.append('span');
    this.slider = label.append('input').attr('type', 'range').attr('min', 1).attr('class', 'scrub')
      .on('input', (event) => this.move(Number(event.target.value)));
    this.says = root.append('div').attr('class', 'says').attr('aria-live', 'polite');
  }

  control(name) {
    if (name === 'surface') this.choice(name, 'surface', SURFACES);
    else if (name === 'variant') this.choice(name, 'variant', Object.fromEntries(VARIANTS.map((v) => [v, v])));
    else if (name === 'start') this.startFields();
    else if (SLIDERS[name].rival) this.rival(name);
    else this.range(this.controls, name, SLIDERS[name].label);
  }

  choice(name, label, options) {
    const set = this.controls.append('fieldset').attr('class', `choice ${name}`);
    set.append('legend').text(label);
    Object.entries(options).forEach(([value, text]) => {
      const one = set.append('label').attr('class', 'option');
      one.append('input').attr('type', 'radio').attr('name', `${this.name}-${name}`).attr('value', value)
        .property('checked', this.config[name] === value)
        .on('change', () => this.set({ [name]: value, ...(name === 'surface' ? { start: null } : {}) }));
      one.append('span').text(text);
    });
  }

  range(parent, name, label) {
    const slider = SLIDERS[name];
    const one = parent.append('label').attr('class', `slider ${name}`);
    const text = one.append('span').text(`${label}: `);
    const value = text.append('output').text(shown(this.config[name]));
    const input = one.append('input').attr('type', 'range').attr('min', 0).attr('max', slider.places).attr('data-name', name)
      .property('value', nearest(slider, this.config[name]));
    const told = () => input.attr('aria-valuetext', value.text());
    told();
    input.on('input', (event) => {
      const now = slider.value(Number(event.target.value));
      value.text(shown(now));
      told();
      this.set({ [name]: now });
    });
    return one;
  }

  rival(name) {
    const set = this.controls.append('fieldset').attr('class', 'rival');
    set.append('legend').text(`beside it: ${RIVALS[name]}`);
    const one = set.append('label').attr('class', 'option');
    const on = this.config[name] !== null;
    const rate = on ? this.config[name] : FIRST_RATE[name];
    this.config[name] = rate;
    const slider = this.range(set, name, SLIDERS[name].label);
    this.config[name] = on ? rate : null;
    const box = one.append('input').attr('type', 'checkbox').property('checked', on);
    one.append('span').text('draw it');
    slider.select('input').property('disabled', !on);
    box.on('change', () => {
      const drawn = box.property('checked');
      slider.select('input').property('disabled', !drawn);
      this.set({ [name]: drawn ? SLIDERS[name].value(Number(slider.select('input').property('value'))) : null });
    });
  }

  startFields() {
    const set = this.controls.append('fieldset').attr('class', 'start');
    set.append('legend').text('start (or drag the ring)');
    this.fields = [0, 1].map((i) => {
      const one = set.append('label');
      one.append('span');
      return one.append('input').attr('type', 'number').attr('step', 0.1).on('change', (event) => {
        if (event.target.value !== '') this.begin(i, Number(event.target.value));
      });
    });
  }

  begin(i, value) {
    const start = [...this.trace.config.start];
    const [low, high] = this.trace.window[i];
    start[i] = Math.min(high, Math.max(low, value));
    this.set({ start });
  }

  set(change) {
    Object.assign(this.config, change);
    if (this.live) this.ask();
  }

  // one question at a time; while it is answered, only the newest of the next ones is kept
  async ask() {
    if (this.asking) { this.again = true; return; }
    this.asking = true;
    try {
      do {
        this.again = false;
        this.root.dataset.state = 'asking';
        const trace = await this.python.ask(this.config); // eslint-disable-line no-await-in-loop
        this.show(trace, this.again ? 'asking' : 'live');
      } while (this.again);
    } catch (error) {
      this.status.text(error.message);
      this.root.dataset.state = 'failed';
    }
    this.asking = false;
  }

  show(trace, state) {
    this.trace = trace;
    this.root.trace = trace;
    if (state !== 'recorded') this.status.text(this.verdict());
    this.slider.attr('max', trace.config.steps);
    Object.entries(SLIDERS).forEach(([name, { only }]) => {
      if (only) this.controls.select(`.slider.${name}`).attr('hidden', only.includes(trace.config.surface) ? null : '');
    });
    if (this.fields) {
      this.fields.forEach((field, i) => {
        const label = this.d3.select(field.node().parentNode);
        label.attr('hidden', i < trace.names.length ? null : '').select('span').text(`${trace.names[i]} `);
        if (i < trace.names.length && document.activeElement !== field.node()) field.property('value', Number(trace.config.start[i].toFixed(3)));
      });
    }
    this.move(Math.min(this.at, trace.config.steps));
    this.draw();
    this.root.dataset.state = state;
  }

  verdict() {
    const { config, runs } = this.trace;
    const aim = config.relative ? 'a millionth of the first' : shown(config.target);
    const most = Math.max(config.steps, config.limit);
    return `${config.variant}: ${runs.map((run) => `${run.label ? `on ${run.label} ` : ''}the error is ${
      run.needed === null ? `not below ${aim} after ${most} steps` : `below ${aim} after ${run.needed} steps`}`).join('; ')}.`;
  }

  move(k) {
    this.at = Math.max(1, Math.min(k, this.trace.config.steps));
    this.slider.property('value', this.at);
    this.counter.text(`step ${this.at} of ${this.trace.config.steps}`);
    this.slider.attr('aria-valuetext', `step ${this.at}`);
    this.says.selectAll('p').data(this.trace.runs).join('p').attr('class', 'sentence')
      .text((run) => `${run.label ? `On ${run.label}: ` : ''}${run.sentences[this.at - 1]}`);
    this.mark();
  }

  play() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = null;
      this.player.text('\u25B6 play').attr('aria-label', 'play the steps');
      return;
    }
    if (this.at >= this.trace.config.steps) this.move(1);
    this.player.text('\u25A0 stop').attr('aria-label', 'stop');
    this.timer = setInterval(() => {
      if (this.at >= this.trace.config.steps) this.play();
      else this.move(this.at + 1);
    }, 350);
  }

  // drawing
  draw() {
    if (!this.trace || !this.charts.node().clientWidth) return;
    this.drawGround();
    this.drawSteps();
    this.drawErrors();
    this.mark();
  }

  frame(svg, ratio, most) { // `svg` is the group that is drawn anew; the ring beside it stays, with its focus and a finger on it
    const { ownerSVGElement } = svg.node();
    const width = Math.max(240, ownerSVGElement.parentNode.clientWidth);
    const height = Math.min(most, width * ratio);
    this.d3.select(ownerSVGElement).attr('width', width).attr('height', height);
    svg.selectAll('*').remove();
    return [width, height];
  }

  axes(svg, x, y, width, height, left, bottom, labels, ticks = 5) {
    const { d3 } = this;
    const logs = (axis, scale) => (scale.base ? axis.ticks(4, '.0e') : axis.ticks(ticks));
    svg.append('g').attr('class', 'axis').attr('transform', `translate(0,${height - bottom})`).call(logs(d3.axisBottom(x), x));
    svg.append('g').attr('class', 'axis').attr('transform', `translate(${left},0)`).call(logs(d3.axisLeft(y), y));
    svg.append('text').attr('class', 'label').attr('x', width - 8).attr('y', height - 4).attr('text-anchor', 'end').text(labels[0]);
    svg.append('text').attr('class', 'label').attr('x', left + 6).attr('y', 11).text(labels[1]);
  }

  drawGround() {
    this.places = [];
    if (this.trace.window.length === 1) this.drawCurves();
    else this.drawContours();
  }

  drawContours() {
    const { d3, trace } = this;
    const [width, height] = this.frame(this.ground, 0.78, 460);
    const [left, bottom, top, right] = [34, 38, 16, 8];
    const x = d3.scaleLinear(trace.window[0], [left, width - right]);
    const y = d3.scaleLinear(trace.window[1], [height - bottom, top]);
    const n = trace.config.grid;
    const run = trace.runs[0];
    const clip = `${this.name}-clip`;
    this.ground.append('clipPath').attr('id', clip).append('rect').attr('x', left).attr('y', top).attr('width', width - left - right).attr('height', height - top - bottom);
    const levels = d3.range(1, 11).map((i) => d3.quantile(run.ground, i / 11));
    const lines = d3.contours().size([n, n]).thresholds([...new Set(levels)])(run.ground);
    const place = d3.geoTransform({
      point(a, b) {
        this.stream.point(left + ((a - 0.5) / (n - 1)) * (width - left - right), height - bottom - ((b - 0.5) / (n - 1)) * (height - top - bottom));
      },
    });
    const inside = this.ground.append('g').attr('clip-path', `url(#${clip})`);
    inside.append('g').attr('class', 'contours').selectAll('path').data(lines).join('path').attr('d', d3.geoPath(place));
    this.axes(this.ground, x, y, width, height, left, bottom, trace.names);
    this.drawRivals(inside, run, (w) => [x(w[0]), y(w[1])]);
    this.drawPath(inside, run, (w) => [x(w[0]), y(w[1])]);
    this.drawStart(run, (w) => [x(w[0]), y(w[1])], (px, py) => [x.invert(px), y.invert(py)]);
  }

  // two bowls of one weight: the path lies on the curve
  drawCurves() {
    const { d3, trace } = this;
    const [width, height] = this.frame(this.ground, 0.62, 400);
    const half = width / trace.runs.length;
    trace.runs.forEach((run, i) => {
      const [left, bottom, top, right] = [i * half + 44, 38, 26, 10];
      const x = d3.scaleLinear(trace.window[0], [left, (i + 1) * half - right]);
      const most = d3.max(run.ground);
      const y = d3.scaleLinear([-0.05 * most, most], [height - bottom, top]);
      const n = run.ground.length;
      const at = d3.range(n).map((k) => trace.window[0][0] + ((trace.window[0][1] - trace.window[0][0]) * k) / (n - 1));
      this.axes(this.ground, x, y, (i + 1) * half, height, left, bottom, [trace.names[0], ''], 3);
      this.ground.append('text').attr('class', 'label').attr('x', left).attr('y', 12).text(`error ${run.label}`);
      const clip = `${this.name}-clip-${i}`;
      this.ground.append('clipPath').attr('id', clip).append('rect').attr('x', left).attr('y', top - 8).attr('width', half - 54).attr('height', height - top - bottom + 8);
      const inside = this.ground.append('g').attr('clip-path', `url(#${clip})`);
      inside.append('path').attr('class', 'curve').attr('d', d3.line()((at.map((w, k) => [x(w), y(run.ground[k])]))));
      const errors = (w, k, from) => [x(w[0]), y(Math.min(from.error[k] ?? 1e9 * most, 1e9 * most))];
      this.drawRivals(inside, run, errors);
      this.drawPath(inside, run, errors);
      if (i === 0) this.drawStart(run, (w) => errors(w, 0, run), (px) => [x.invert(px)]);
    });
  }

  drawRivals(inside, run, place) {
    Object.keys(RIVALS).filter((name) => run[name]).forEach((name) => {
      const spots = run[name].w.map((w, k) => (w.every((v) => v !== null) ? place(w, k, run[name]) : null)).filter((p) => p && p.every((v) => Math.abs(v) < 1e7));
      inside.append('path').attr('class', `rival-line ${name}`).attr('d', this.d3.line()(spots));
      inside.append('g').selectAll('circle').data(spots).join('circle').attr('class', `rival-point ${name}`).attr('r', 2).attr('cx', (p) => p[0]).attr('cy', (p) => p[1]);
    });
  }

  drawPath(inside, run, place) {
    const spots = run.w.map((w, k) => ({ w, at: place(w, k, run), undone: run.undone[k] }));
    const colour = `variant-${VARIANTS.indexOf(this.trace.config.variant)}`;
    inside.append('path').attr('class', `path ${colour}`).attr('d', this.d3.line()(spots.map((s) => s.at)));
    inside.append('g').selectAll('circle').data(spots).join('circle').attr('class', (s) => `point ${colour}${s.undone ? ' undone' : ''}`)
      .attr('data-w', (s) => s.w.join(' ')).attr('r', (s) => (s.undone ? 4 : 3)).attr('cx', (s) => s.at[0]).attr('cy', (s) => s.at[1]);
    this.places.push({ spots, now: inside.append('circle').attr('class', 'now').attr('r', 7) });
  }

  buildRing(svg) {
    const ends = (w) => w.map((v, i) => {
      const [low, high] = this.trace.window[i];
      return Number(Math.min(high, Math.max(low, v)).toFixed(3));
    });
    this.ring = svg.append('circle').attr('class', 'start-ring').attr('r', 11)
      .attr('tabindex', 0).attr('role', 'slider').attr('aria-label', 'start of the walk; the arrow keys move it');
    this.ring.call(this.d3.drag().container(svg.node()).on('drag', (event) => this.set({ start: ends(this.back(event.x, event.y)) })));
    this.ring.on('keydown', (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const { window, config } = this.trace;
      this.set({ start: ends(config.start.map((v, i) => v + (way[i] * (window[i][1] - window[i][0])) / 60)) });
    });
  }

  // put the ring where the walk starts; `back` turns a place on the picture into weights
  drawStart(run, place, back) {
    this.back = back;
    const [cx, cy] = place(run.w[0]);
    this.ring.attr('cx', cx).attr('cy', cy).attr('aria-valuenow', run.w[0][0])
      .attr('aria-valuetext', this.trace.names.map((name, i) => `${name} ${shown(run.w[0][i])}`).join(', '));
  }

  drawSteps() {
    const { d3, trace } = this;
    const [width, height] = this.frame(this.stepsChart, 0.5, 210);
    const run = trace.runs[0];
    const values = run.moves.flat().map((m) => m.step_after).filter((v) => v > 0);
    const [x, y] = this.scales(width, height, d3.extent(values));
    this.axes(this.stepsChart, x, y, width, height, 44, 38, ['step', 'step size; a cross marks a flip']);
    trace.names.forEach((name, i) => {
      const spots = run.moves.map((moves, k) => [k + 1, moves[i].step_after]).filter((p) => p[1] > 0);
      this.stepsChart.append('path').attr('class', `weight-${i} line`).attr('d', d3.line((p) => x(p[0]), (p) => y(p[1]))(spots));
      this.stepsChart.append('g').selectAll('path').data(spots.filter((p) => run.flips[p[0] - 1][i])).join('path').attr('class', `flip weight-${i}`)
        .attr('d', d3.symbol(d3.symbolTimes, 34)).attr('transform', (p) => `translate(${x(p[0])},${y(p[1])})`);
      this.stepsChart.append('text').attr('class', `key weight-${i}`).attr('x', width - 10 - (trace.names.length - 1 - i) * 26).attr('y', 11).attr('text-anchor', 'end').text(name);
    });
    this.stepsMark = this.stepsChart.append('line').attr('class', 'cursor').attr('y1', 18).attr('y2', height - 38);
    this.stepsX = x;
  }

  drawErrors() {
    const { d3, trace } = this;
    const [width, height] = this.frame(this.errorChart, 0.5, 210);
    const lines = trace.runs.flatMap((run, i) => [['own', run.error, i], ...Object.keys(RIVALS).filter((name) => run[name]).map((name) => [name, run[name].error, i])]);
    const own = trace.runs.flatMap((run) => run.error).filter((v) => v > 0);
    const all = lines.flatMap((l) => l[1]).filter((v) => v > 0);
    const [x, y] = this.scales(width, height, [Math.max(d3.min(own), 1e-12), Math.min(d3.max(all), 1e4 * d3.max(own))]);
    const colour = `variant-${VARIANTS.indexOf(trace.config.variant)}`;
    this.axes(this.errorChart, x, y, width, height, 44, 38, ['step', 'error']);
    lines.forEach(([kind, errors, i]) => {
      const line = d3.line((p) => x(p[0]), (p) => y(p[1])).defined((p) => p[1] > 0);
      this.errorChart.append('path').attr('class', `${kind === 'own' ? `path ${colour}` : `rival-line ${kind}`} run-${i}`)
        .attr('d', line(errors.map((e, k) => [k, e > 0 ? Math.min(y.domain()[1], Math.max(y.domain()[0], e)) : e])));
    });
    const keys = ['own', ...Object.keys(RIVALS).filter((name) => trace.runs[0][name])];
    keys.forEach((kind, i) => this.errorChart.append('text').attr('class', `key ${kind === 'own' ? colour : kind}`).attr('x', width - 10).attr('y', 24 + 14 * i)
      .attr('text-anchor', 'end').text(kind === 'own' ? trace.config.variant : RIVALS[kind]));
    this.errorMark = this.errorChart.append('line').attr('class', 'cursor').attr('y1', 18).attr('y2', height - 38);
  }

  scales(width, height, [low, high]) {
    const { d3 } = this;
    const span = high / low < 10 ? [low / 2, high * 2] : [low, high];
    return [d3.scaleLinear([0, this.trace.config.steps], [44, width - 10]), d3.scaleLog(span, [height - 38, 20])];
  }

  // where the scrubber stands: the point that the step leaves, and a line in both charts
  mark() {
    (this.places || []).forEach(({ spots, now }) => {
      const spot = spots[Math.min(this.at - 1, spots.length - 1)];
      now.attr('cx', spot.at[0]).attr('cy', spot.at[1]);
    });
    if (this.stepsX) [this.stepsMark, this.errorMark].forEach((line) => line.attr('x1', this.stepsX(this.at)).attr('x2', this.stepsX(this.at)));
  }
}

async function main() {
  const roots = [...document.querySelectorAll('.rprop-play')];
  if (!roots.length) return;
  const json = (name) => fetch(`${here}play/${name}`).then((reply) => reply.json());
  const [figures, recorded] = await Promise.all([json('figures.json'), json('recorded.json'), import('./npm/d3.min.js')]);
  const python = new Python();
  roots.forEach((root) => {
    const { figure } = root.dataset;
    root.figure = new Figure(root, globalThis.d3, python, figure, figures[figure], recorded[figure]);
  });
}

main();
