/** Preloaded, it puts the clock of a process back by an hour, eight seconds after its start. */
const hourMs = 3_600_000
const jumpsAfterMs = 8000
const now = Date.now
const Real = Date
const shifted = () => now() - (performance.now() > jumpsAfterMs ? hourMs : 0)
Date.now = shifted
globalThis.Date = new Proxy(Real, {
  construct: (target, args, subclass) => Reflect.construct(target, args.length === 0 ? [shifted()] : args, subclass),
  apply: () => new Real(shifted()).toString(),
})
