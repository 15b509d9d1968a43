/**
 * What the name of a file tells where its tensors are those of another model, and no pipeline's folder says which: its
 * authors publish them under these names.
 */
import { basename } from 'node:path'
import type { KnownFamily, Verdict } from './verdict.ts'

const edits: Partial<Record<KnownFamily, RegExp>> = { flux1: /kontext/i, 'qwen-image': /edit/i }

/** The verdict of a file with what its name adds. */
export function withName(verdict: Verdict, path: string): Verdict {
  const { family, variants, kind } = verdict
  const draws = kind === 'checkpoint' || kind === 'diffusion-model'
  if (!draws || !family || variants.includes('edit') || !edits[family]?.test(basename(path))) return verdict
  return { ...verdict, variants: [...variants, 'edit'], notes: [...verdict.notes, 'It edits pictures by its name; tensors do not tell.'] }
}
