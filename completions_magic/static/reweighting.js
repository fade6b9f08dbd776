// The distribution of a token under other sampling parameters; reweighting.py says how and why, line by line the same.

const IMPOSSIBLE = -9999;
const WHOLE = 1e-9;
const EDGE = 1 - 1e-12;
const NOTHING = 1e-12;
const LEAST = -690;

const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);

function runningSums(numbers) {
  let sum = 0;
  return numbers.map((number) => (sum += number));
}

// How many of the first it takes to hold `mass`; all of them where that is not enough.
function reaching(sums, mass) {
  const at = sums.findIndex((held) => held >= mass);
  return at < 0 ? sums.length : at + 1;
}

function bits(weights, groups) {
  const all = [...weights.map((weight) => [1, weight]), ...groups].filter(([, weight]) => weight > 0);
  const mass = total(all.map(([many, weight]) => many * weight));
  return Math.max(0, total(all.map(([many, weight]) => ((-many * weight) / mass) * Math.log2(weight / mass))));
}

export function outsideOf({ logprobs, vocabulary }) {
  const left = Math.abs(1 - total(logprobs.map(Math.exp)));
  return left < WHOLE || logprobs.length >= vocabulary ? 0 : left;
}

// Tokens in the running, with weights relative to the likeliest's: `sure` of `head` at any rate, listed ones below the
// likeliest, and others. The last two together weigh `low` to `high`, and none of them more than `cap`.
class Pool {
  constructor(listed, temperature) {
    const { logprobs, likeliest, vocabulary } = listed;
    this.heat = temperature || 1;
    const scores = logprobs.map((score) => score - logprobs[0]);
    const kept = [...logprobs.keys()].filter((at) => logprobs[at] > IMPOSSIBLE || at === 0);
    const border = kept.filter((at) => at < likeliest).length;
    const weights = kept.map((at) => Math.exp(scores[at] / this.heat));
    this.head = weights.slice(0, border);
    this.strays = weights.slice(border);
    this.drawable = true;
    this.sure = this.head.length;
    const lowest = Math.max(scores[kept[border - 1]], LEAST);
    this.cap = Math.max(Math.exp(lowest / this.heat), Math.exp(LEAST));
    this.outside = logprobs[0] > LEAST ? outsideOf(listed) / Math.exp(logprobs[0]) : 0;
    this.count = 0;
    const strays = total(this.strays);
    this.low = this.high = strays;
    if (this.outside) {
      const cap = Math.exp(lowest);
      this.count = Math.max(vocabulary - logprobs.length, Math.ceil(this.outside / cap));
      const ends = [this.gathered(cap), this.spread(this.count)];
      this.low = strays + Math.min(...ends);
      this.high = strays + Math.max(...ends);
    }
  }

  gathered(cap) {
    const full = Math.floor(this.outside / cap);
    const last = Math.max(0, this.outside - full * cap);
    return full * this.cap + (last > NOTHING ? Math.exp(Math.log(last) / this.heat) : 0);
  }

  spread(count) {
    return count * Math.exp(Math.log(this.outside / count) / this.heat);
  }

  dropOthers() {
    this.strays = [];
    this.low = this.high = this.count = 0;
  }

  applyMinP(minP) {
    if (minP <= 0) return;
    const edge = minP * EDGE;
    this.head = this.head.filter((weight) => weight >= edge);
    this.sure = this.head.length;
    if (this.cap < edge) {
      this.dropOthers();
      return;
    }
    this.strays = this.strays.filter((weight) => weight >= edge);
    const strays = total(this.strays);
    if (!this.outside) {
      this.low = this.high = strays;
      return;
    }
    const least = Math.exp(Math.max(this.heat * Math.log(edge), LEAST));
    this.count = Math.min(this.count, Math.floor(this.outside / least));
    let most = this.count ? this.high : 0;
    if (this.count && this.heat > 1) most = Math.min(most, strays + this.spread(this.count));
    this.low = strays;
    this.high = Math.min(Math.max(strays, most), strays + this.count * this.cap);
  }

  applyTopK(topK) {
    if (topK === null) return;
    const room = topK - this.head.length;
    if (room <= 0) {
      this.head = this.head.slice(0, topK);
      this.sure = this.head.length;
      this.dropOthers();
    } else if (room < this.count + this.strays.length) {
      this.drawable = this.drawable && !this.strays.length;
      this.low = 0;
      this.high = Math.min(this.high, room * this.cap);
      this.count = Math.min(this.count, room);
    }
  }

  applyTopP(topP) {
    if (topP >= 1) return;
    const sums = runningSums(this.head);
    const sum = sums[sums.length - 1];
    const least = topP * EDGE * (sum + this.low);
    const most = topP * EDGE * (sum + this.high);
    this.sure = reaching(sums, least);
    if (sum >= most) {
      this.head = this.head.slice(0, reaching(sums, most));
      this.dropOthers();
      return;
    }
    this.drawable = this.drawable && !this.strays.length;
    this.low = Math.max(0, least - sum);
    this.high = Math.min(this.high, most - sum + this.cap);
  }

  result({ logprobs, likeliest }) {
    const sums = runningSums(this.head);
    const sum = sums[sums.length - 1];
    const least = sums[this.sure - 1] + this.low;
    const most = sum + this.high;
    const head = this.head.map((weight, at) => (at < this.sure ? [weight / most, weight / least] : [0, weight / sums[at]]));
    const strays = this.strays.map((weight) =>
      this.drawable ? [weight / most, weight / least] : [0, weight / (sum + weight)],
    );
    const known = total(this.strays);
    const others = this.drawable
      ? [Math.max(0, this.low - known) / least, Math.max(0, this.high - known) / most]
      : [Math.max(0, this.low / least - total(strays.map(([, high]) => high))), this.high / most];
    const gone = logprobs.map(() => [0, 0]);
    const shares = [...[...head, ...gone].slice(0, likeliest), ...strays, ...gone].slice(0, logprobs.length);
    return { shares, others, entropy: this.entropy(), left: this.left() };
  }

  entropy() {
    const few = Math.floor(this.low / this.cap);
    const last = Math.max(0, this.low - few * this.cap);
    const many = this.count + this.strays.length;
    return [
      bits(this.head.slice(0, this.sure), [[few, this.cap], [1, last]]),
      bits(this.head, many && this.high ? [[many, this.high / many]] : []),
    ];
  }

  left() {
    const certain = this.drawable ? this.strays.length : 0;
    const least = Math.max(certain, Math.ceil((this.low / this.cap) * EDGE));
    return [this.sure + least, this.head.length + (this.high ? this.count : 0) + this.strays.length];
  }
}

// `listed` has logprobs, the likeliest first, how many of them are the likeliest of all, and the vocabulary's size.
export function reweigh(listed, { temperature = 1, top_p = 1, top_k = null, min_p = 0 } = {}) {
  const pool = new Pool(listed, temperature);
  pool.applyMinP(min_p);
  pool.applyTopK(temperature === 0 ? 1 : top_k);
  pool.applyTopP(top_p);
  return pool.result(listed);
}
