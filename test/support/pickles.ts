/** Pickles as strangers write them. What opens one with its code running leaves a mark. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { interpreter } from './child.ts'

const python = promisify(execFile)

/** A pickle that makes a file at `mark` when its code runs: `posix.system('touch …')`, in protocol 2. */
export function writeMarking(path: string, mark: string): void {
  mkdirSync(dirname(path), { recursive: true })
  const command = Buffer.from(`touch '${mark}'`)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(command.length)
  writeFileSync(path, Buffer.concat([Buffer.from('\x80\x02cposix\nsystem\nX', 'latin1'), length, command, Buffer.from('\x85R.', 'latin1')]))
}

export const isMarked = (mark: string): boolean => existsSync(mark)

/** Writes what the real library saves: each expression is Python, of torch and of what `imports` says. */
export async function writePickles(saves: Record<string, string>, imports = ''): Promise<void> {
  for (const path of Object.keys(saves)) mkdirSync(dirname(path), { recursive: true })
  const lines = Object.entries(saves).map(([path, expression]) => `torch.save(${expression}, ${JSON.stringify(path)})`)
  await python(interpreter(), ['-c', ['import torch', imports, ...lines].join('\n')])
}
