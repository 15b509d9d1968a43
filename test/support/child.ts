/** Commands that start a Python child: the product's own, and the one that draws nothing and fails on demand. */
import { join } from 'node:path'
import { readyEnvironment } from '../../host/places.mjs'
import { readConfig, root } from '../../src/config.ts'

/** The interpreter of the environment that set-up made, as `src/main.ts` starts it. */
export function interpreter(): string {
  const found = process.env['DARKROOM_PYTHON'] ?? readyEnvironment({ home: readConfig({}).home })?.interpreter
  if (found === undefined) throw new Error('there is no Python environment: `npm run setup` makes it')
  return found
}

export const realChild = (): string[] => [interpreter(), '-P', '-m', 'darkroom']
/** `switches`: those of fake_child.py. */
export const fakeChild = (...switches: string[]): string[] => [interpreter(), join(root, 'test/support/fake_child.py'), ...switches]
