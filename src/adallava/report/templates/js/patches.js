// A picture with the patches that a method kept: kept ones in colour and outlined, dropped ones faded; of a method
// that merges, a ring where each combined token has its place, and the rest fades less, since it is not lost. The grid
// of patches lies in a frame, which may be a part of the picture: what the model sees.

const FADE = 0.72, FADE_MERGED = 0.4, CUT_OFF = 0.6;

// {left, top, across, down} in pixels; across and down are a patch's sides.
function placeOf(canvas, frame, grid) {
  const [left, top, right, bottom] = frame, [rows, columns] = grid;
  return {
    left: left * canvas.width, top: top * canvas.height,
    across: ((right - left) * canvas.width) / columns, down: ((bottom - top) * canvas.height) / rows,
  };
}

function drawKept(canvas, image, grid, frame, isKept, merged) {
  const [rows, columns] = grid, place = placeOf(canvas, frame, grid);
  const context = canvas.getContext("2d");
  const whole = [0, 0, canvas.width, canvas.height];
  context.filter = "grayscale(85%)";
  context.drawImage(image, ...whole);
  context.filter = "none";
  context.fillStyle = `rgba(255, 255, 255, ${merged ? FADE_MERGED : FADE})`;
  context.fillRect(...whole);
  context.save();
  context.beginPath();
  for (let index = 0; index < rows * columns; index += 1) {
    if (!isKept(index)) continue;
    if (merged) ring(context, place, columns, index);
    else context.rect(...cornerOf(place, columns, index), place.across, place.down);
  }
  context.clip();
  context.drawImage(image, ...whole);
  context.restore();
  context.strokeStyle = "#141414";
  context.lineWidth = Math.max(1.5, Math.min(place.across, place.down) / 12);
  context.beginPath();
  if (merged) rings(context, rows, columns, place, isKept);
  else borders(context, rows, columns, place, isKept);
  context.stroke();
}

function cornerOf(place, columns, index) {
  return [place.left + (index % columns) * place.across, place.top + Math.floor(index / columns) * place.down];
}

function ring(context, place, columns, index) {
  const [left, top] = cornerOf(place, columns, index);
  context.moveTo(left + place.across * 0.84, top + place.down / 2);
  context.ellipse(
    left + place.across / 2, top + place.down / 2, place.across * 0.34, place.down * 0.34, 0, 0, 2 * Math.PI);
}

function rings(context, rows, columns, place, isKept) {
  for (let index = 0; index < rows * columns; index += 1) if (isKept(index)) ring(context, place, columns, index);
}

// The border between kept and dropped patches; the grid's own edge counts as one.
function borders(context, rows, columns, place, isKept) {
  const at = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && isKept(row * columns + column);
  const half = context.lineWidth / 2;
  const edge = (steps, number, side) => Math.min(Math.max(steps * side, half), number * side - half);
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      const x = place.left + edge(column, columns, place.across), y = place.top + edge(row, rows, place.down);
      if (column < columns && at(row - 1, column) !== at(row, column)) {
        context.moveTo(place.left + column * place.across, y);
        context.lineTo(place.left + (column + 1) * place.across, y);
      }
      if (row < rows && at(row, column - 1) !== at(row, column)) {
        context.moveTo(x, place.top + row * place.down);
        context.lineTo(x, place.top + (row + 1) * place.down);
      }
    }
  }
}

// Darken what the model does not see, and draw a line around what it does.
function drawFrame(canvas, frame) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const [left, top, right, bottom] = [frame[0] * width, frame[1] * height, frame[2] * width, frame[3] * height];
  context.fillStyle = `rgba(20, 20, 20, ${CUT_OFF})`;
  context.fillRect(0, 0, width, top);
  context.fillRect(0, bottom, width, height - bottom);
  context.fillRect(0, top, left, bottom - top);
  context.fillRect(right, top, width - right, bottom - top);
  // A canvas is shown smaller than it is.
  const scale = Math.max(width, height) / 400;
  for (const [color, line, out] of [["#141414", 4 * scale, 0], ["#ffffff", 2 * scale, scale]]) {
    context.strokeStyle = color;
    context.lineWidth = line;
    context.strokeRect(left - out, top - out, right - left + 2 * out, bottom - top + 2 * out);
  }
}
