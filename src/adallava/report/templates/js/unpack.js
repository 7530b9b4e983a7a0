// Packed columns back to numbers and texts, see packed.py. Nothing here touches the page.

async function unpackBytes(packed) {
  const binary = atob(packed);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackTexts(packed) {
  return JSON.parse(new TextDecoder().decode(await unpackBytes(packed)));
}

async function unpackNumbers(packed) {
  const bytes = await unpackBytes(packed);
  return new Uint32Array(bytes.buffer, 0, bytes.length / 4);
}

function bitAt(bytes, start, index) {
  return (bytes[start + (index >> 3)] >> (index & 7)) & 1;
}

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
