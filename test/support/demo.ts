/** `darkroom demo` in a folder of its own, and what it leaves there. */
import { readdir } from 'node:fs/promises'
import { installed, start, type Running } from './command.ts'

/** As a newcomer gives it; settings that it must not heed are there. */
export const demo = (folder: string, ...args: string[]): Running =>
  start(['demo', ...args], { TMPDIR: folder, DARKROOM_DATA: '/nonexistent', DARKROOM_WORKERS: '7' }, folder, installed)

/** What is left of it besides its pictures. */
export const remains = async (folder: string): Promise<string[]> =>
  (await readdir(folder)).filter((name) => name.startsWith('darkroom-') && !name.endsWith('.png'))
