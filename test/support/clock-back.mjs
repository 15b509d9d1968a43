/** Preloaded, it puts the clock of a process back by an hour when it is sent SIGUSR1. */
const hourMs = 3_600_000
let behindMs = 0
process.on('SIGUSR1', () => (behindMs = hourMs))
const now = Date.now
const Real = Date
const shifted = () => now() - behindMs
Date.now = shifted
globalThis.Date = new Proxy(Real, {
  construct: (target, args, subclass) => Reflect.construct(target, args.length === 0 ? [shifted()] : args, subclass),
  apply: () => new Real(shifted()).toString(),
})
