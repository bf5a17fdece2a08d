// Loss surfaces on a plain 2-D canvas: rotate, project, paint from the back to the front.
(() => {
  "use strict";
  const HEIGHT = 0.75; // of the surface, whose base is two wide
  const COLORS = [
    [0, [38, 70, 140]],
    [0.35, [52, 140, 160]],
    [0.65, [150, 190, 120]],
    [1, [240, 200, 90]],
  ];

  function colorOf(share, light) {
    let i = 1;
    while (i < COLORS.length - 1 && share > COLORS[i][0]) i += 1;
    const [start, from] = COLORS[i - 1];
    const [end, to] = COLORS[i];
    const t = Math.min(1, Math.max(0, (share - start) / (end - start)));
    const mix = from.map((value, k) => Math.round((value + t * (to[k] - value)) * light));
    return `rgb(${mix.join(",")})`;
  }

  class Landscape {
    constructor(figure) {
      this.data = JSON.parse(figure.querySelector("script").textContent);
      this.canvas = figure.querySelector("canvas");
      this.context = this.canvas.getContext("2d");
      this.isLogarithmic = true;
      this.reset();
      this.scale();
      this.listen(figure);
      this.resize();
    }

    reset() {
      this.turn = -0.6;
      this.tilt = 0.55;
      this.zoom = 1;
    }

    // Heights in [0, 1]; null where there is no loss.
    scale() {
      const known = this.data.losses.flat().filter((loss) => loss !== null);
      this.lowest = Math.min(...known);
      this.highest = Math.max(...known);
      const rescale = (loss) =>
        !this.isLogarithmic ? loss - this.lowest
          : this.lowest > 0 ? Math.log(loss / this.lowest) : Math.log1p(loss - this.lowest);
      const range = rescale(this.highest) || 1;
      this.heights = this.data.losses.map((row) =>
        row.map((loss) => (loss === null ? null : rescale(loss) / range)),
      );
    }

    listen(figure) {
      const { canvas } = this;
      let held = null;
      canvas.addEventListener("pointerdown", (event) => {
        held = [event.clientX, event.clientY];
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (held === null) return;
        this.rotate((event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * 0.01);
        held = [event.clientX, event.clientY];
      });
      for (const name of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(name, () => (held = null));
      }
      canvas.addEventListener("keydown", (event) => this.onKey(event));
      const [reset, logarithm] = figure.querySelectorAll(".controls button");
      reset.addEventListener("click", () => {
        this.reset();
        this.draw();
      });
      logarithm.addEventListener("click", () => {
        this.isLogarithmic = !this.isLogarithmic;
        logarithm.setAttribute("aria-pressed", String(this.isLogarithmic));
        this.scale();
        this.draw();
      });
      figure.querySelector(".controls").hidden = false;
      new ResizeObserver(() => this.resize()).observe(canvas);
      document.addEventListener("themechange", () => this.draw());
    }

    onKey(event) {
      const steps = {
        ArrowLeft: [-0.1, 0],
        ArrowRight: [0.1, 0],
        ArrowUp: [0, -0.08],
        ArrowDown: [0, 0.08],
      };
      if (event.key in steps) this.rotate(...steps[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoomBy(1.1);
      else if (event.key === "-") this.zoomBy(1 / 1.1);
      else if (event.key === "Home") this.reset();
      else return;
      event.preventDefault();
      this.draw();
    }

    rotate(turn, tilt) {
      this.turn += turn;
      this.tilt = Math.min(1.5, Math.max(0.05, this.tilt + tilt));
      this.draw();
    }

    zoomBy(factor) {
      this.zoom = Math.min(4, Math.max(0.5, this.zoom * factor));
    }

    resize() {
      const ratio = devicePixelRatio || 1;
      const width = Math.round(this.canvas.clientWidth * ratio);
      const height = Math.round(this.canvas.clientHeight * ratio);
      if (!width || !height) return;
      this.canvas.width = width;
      this.canvas.height = height;
      this.ratio = ratio;
      this.draw();
    }

    // From the box [-1, 1] x [-1, 1] x [0, 1] to pixels, and the distance from the eye.
    project(x, y, z) {
      const { width, height } = this.canvas;
      const u = x * Math.cos(this.turn) - y * Math.sin(this.turn);
      const v = x * Math.sin(this.turn) + y * Math.cos(this.turn);
      const h = (z - 0.5) * 2 * HEIGHT;
      const depth = v * Math.cos(this.tilt) - h * Math.sin(this.tilt);
      const up = v * Math.sin(this.tilt) + h * Math.cos(this.tilt);
      const size = (0.24 * Math.min(width, height * 1.2) * this.zoom) / (1 + 0.12 * depth);
      return [width / 2 + u * size, height / 2 - up * size, depth];
    }

    draw() {
      const { context: pen, canvas } = this;
      const style = getComputedStyle(document.documentElement);
      this.ink = style.getPropertyValue("--soft");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.lineJoin = "round";
      this.drawBase();
      for (const [corners, , fill] of this.faces()) {
        this.path(corners);
        pen.fillStyle = fill;
        pen.strokeStyle = fill;
        pen.lineWidth = 0.6 * this.ratio;
        pen.fill();
        pen.stroke();
      }
      this.drawLabels();
    }

    // The surface's quadrilaterals, the farthest first; light falls from one side.
    faces() {
      const rows = this.heights.length;
      const columns = this.heights[0].length;
      const points = this.heights.map((row, i) =>
        row.map((z, j) => z !== null && this.project(this.x(i), this.y(j), z)),
      );
      const faces = [];
      for (let i = 0; i + 1 < rows; i += 1) {
        for (let j = 0; j + 1 < columns; j += 1) {
          const at = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
          const corners = at.map(([a, b]) => points[a][b]);
          if (corners.includes(false)) continue;
          const z = at.map(([a, b]) => this.heights[a][b]);
          const slope = (z[1] + z[2] - z[0] - z[3]) * rows * 0.12;
          const light = 0.94 - 0.16 * Math.tanh(slope);
          const depth = corners.reduce((sum, corner) => sum + corner[2], 0);
          faces.push([corners, depth, colorOf((z[0] + z[1] + z[2] + z[3]) / 4, light)]);
        }
      }
      return faces.sort((a, b) => b[1] - a[1]);
    }

    x(i) {
      const { alphas } = this.data;
      return (2 * (alphas[i] - alphas[0])) / (alphas[alphas.length - 1] - alphas[0]) - 1;
    }

    y(j) {
      const { betas } = this.data;
      return (2 * (betas[j] - betas[0])) / (betas[betas.length - 1] - betas[0]) - 1;
    }

    path(corners) {
      const { context: pen } = this;
      pen.beginPath();
      corners.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
    }

    drawBase() {
      const { context: pen } = this;
      pen.strokeStyle = this.ink;
      pen.lineWidth = this.ratio;
      this.path([[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => this.project(x, y, 0)));
      pen.stroke();
      this.path([[-1, -1, 0], [-1, -1, 1]].map((corner) => this.project(...corner)));
      pen.stroke();
    }

    drawLabels() {
      const { context: pen, data } = this;
      pen.fillStyle = this.ink;
      pen.font = `${13 * this.ratio}px system-ui, sans-serif`;
      pen.textAlign = "center";
      const ends = (values) => [values[0], values[values.length - 1]].map((v) => +v.toPrecision(3));
      const [a0, a1] = ends(data.alphas);
      const [b0, b1] = ends(data.betas);
      const write = (text, ...at) => {
        const [x, y] = this.project(...at);
        pen.fillText(text, x, y + 5 * this.ratio);
      };
      write(`\u03b1 ${a0}`, -1, -1.2, 0);
      write(`\u03b1 ${a1}`, 1, -1.2, 0);
      write(`\u03b2 ${b0}`, 1.25, -1, 0);
      write(`\u03b2 ${b1}`, 1.25, 1, 0);
      write(`${+this.lowest.toPrecision(3)}`, -1.15, -1.05, 0);
      write(`loss ${+this.highest.toPrecision(3)}`, -1, -1, 1.12);
    }
  }

  document.querySelectorAll("figure.landscape").forEach((figure) => new Landscape(figure));
})();
