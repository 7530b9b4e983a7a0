// A picture with the patches that a method kept: kept ones in colour and outlined, dropped ones faded; of a method
// that merges, a ring where each combined token has its place, and the rest fades less, since it is not lost.

const FADE = 0.72, FADE_MERGED = 0.4;

function drawKept(canvas, image, grid, isKept, merged) {
  const [rows, columns] = grid, size = canvas.width / columns;
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
    const left = (index % columns) * size, top = Math.floor(index / columns) * size;
    if (merged) {
      context.moveTo(left + size * 0.84, top + size / 2);
      context.arc(left + size / 2, top + size / 2, size * 0.34, 0, 2 * Math.PI);
    } else {
      context.rect(left, top, size, size);
    }
  }
  context.clip();
  context.drawImage(image, ...whole);
  context.restore();
  context.strokeStyle = "#141414";
  context.lineWidth = Math.max(1.5, size / 12);
  context.beginPath();
  if (merged) rings(context, rows, columns, size, isKept);
  else borders(context, rows, columns, size, isKept);
  context.stroke();
}

function rings(context, rows, columns, size, isKept) {
  for (let index = 0; index < rows * columns; index += 1) {
    if (!isKept(index)) continue;
    const x = ((index % columns) + 0.5) * size, y = (Math.floor(index / columns) + 0.5) * size;
    context.moveTo(x + size * 0.34, y);
    context.arc(x, y, size * 0.34, 0, 2 * Math.PI);
  }
}

// The border between kept and dropped patches; the picture's own edge counts as one.
function borders(context, rows, columns, size, isKept) {
  const at = (row, column) => row >= 0 && row < rows && column >= 0 && column < columns && isKept(row * columns + column);
  const edge = (x, y) => Math.min(Math.max(x, context.lineWidth / 2), y - context.lineWidth / 2);
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      const x = edge(column * size, columns * size), y = edge(row * size, rows * size);
      if (column < columns && at(row - 1, column) !== at(row, column)) {
        context.moveTo(column * size, y);
        context.lineTo((column + 1) * size, y);
      }
      if (row < rows && at(row, column - 1) !== at(row, column)) {
        context.moveTo(x, row * size);
        context.lineTo(x, (row + 1) * size);
      }
    }
  }
}
