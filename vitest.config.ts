import { defineConfig } from 'vitest/config'

/** Test files that start no process and no server: `npm run check` runs these alone. */
const unit = ['test/**/*.unit.test.ts']

/** Minutes: by their own command, `npm run test:exact`. */
const exact = ['test/exact/**/*.test.ts']

/** Minutes too, `npm run test:crash`: the kills that take many processes, or much waiting. */
const long = ['test/long/*.test.ts']

/** Public programs and libraries against what Darkroom speaks, `npm run test:doors`: they are fetched. */
const doors = ['test/doors/**/*.test.ts']

/** Needs the addon and its programs: `npm run test:native` builds them first. */
const native = ['test/native/**/*.test.ts']

/** What farms run is built once, before the first test of a project. */
const whole = { pool: 'forks', testTimeout: 60_000, hookTimeout: 60_000, globalSetup: 'test/support/built.ts' } as const

export default defineConfig({
  test: {
    // Real Redis, real processes: more files at once than cores only makes clocks late.
    maxWorkers: 2,
    projects: [
      // They share their modules: to load these again for each file takes as long as the tests.
      { test: { ...whole, globalSetup: [], isolate: false, name: 'unit', include: unit } },
      {
        test: {
          ...whole,
          isolate: false,
          name: 'system',
          include: ['test/**/*.test.ts'],
          exclude: [...unit, ...exact, ...long, ...doors, ...native],
        },
      },
      { test: { ...whole, name: 'exact', include: exact } },
      { test: { ...whole, name: 'long', include: long } },
      { test: { ...whole, name: 'doors', include: doors } },
      { test: { ...whole, name: 'native', include: native } },
    ],
  },
})
