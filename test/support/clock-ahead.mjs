/** Preloaded, it puts the clock of a process an hour ahead of Redis' and everybody else's. */
const hourMs = 3_600_000
const now = Date.now
const Real = Date
Date.now = () => now() + hourMs
globalThis.Date = new Proxy(Real, {
  construct: (target, args, subclass) => Reflect.construct(target, args.length === 0 ? [now() + hourMs] : args, subclass),
  apply: () => new Real(now() + hourMs).toString(),
})
