// As much of protobuf as it takes to find the audio in one of Pipecat's frames.

const AUDIO_FRAME = 2; // in Frame; the other members are text, transcription and message
const AUDIO = 3; // in AudioRawFrame
const LENGTH_DELIMITED = 2;

/** [field number, bytes] of every length-delimited field of a message; varints are skipped. */
function* fields(data) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = data[at++];
      if (byte === undefined) throw new Error("the message ends inside a number");
      value += (byte & 0x7f) * 2 ** shift; // no <<: ids have more than 32 bits
      if (byte < 0x80) return value;
    }
  };
  while (at < data.length) {
    const key = varint();
    const value = varint();
    if (key % 8 === LENGTH_DELIMITED) {
      if (at + value > data.length) throw new Error("the message ends inside a field");
      yield [key >> 3, data.subarray(at, at + value)];
      at += value;
    } else if (key % 8 !== 0) {
      throw new Error(`no such field is known: ${key}`);
    }
  }
}

/** The PCM in a frame; empty for frames without audio. */
export function audioOf(frame) {
  for (const [number, data] of fields(frame)) {
    if (number === AUDIO_FRAME) {
      for (const [inner, pcm] of fields(data)) if (inner === AUDIO) return pcm;
    }
  }
  return frame.subarray(0, 0);
}
