/**
 * CLIP's vocabulary, which single files of Stable Diffusion and others do not hold: made of the merges that the wheel
 * of OpenCLIP (MIT licence) ships, for the three text encoders that models have.
 */
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { root, shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { madeConfigs, openClip } from '../host/places.mjs'
import { failure } from './failure.mjs'
import { makeRoom } from './room.mjs'
import { takeOut } from './wheel.mjs'

/** SHA-256 of the `merges.txt` that was published with CLIP ViT-L/14. */
const mergesSha256 = '9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a'
/** How many merges make CLIP's 49,408 words, with 256 letters, as many at the end of a word, and two marks. */
const merges = 49_408 - 2 * 256 - 2

/**
 * The set of configurations with CLIP's vocabulary, made when it is not there.
 * @param {string} home
 * @param {string} python an interpreter with pip
 * @param {import('./say.mjs').Say} say
 * @param {import('../host/places.mjs').Wheel} [wheel]
 * @returns {Promise<string>} its folder
 * @throws SetupFailure
 */
export async function ensureClip(home, python, say, wheel = openClip) {
  const folder = join(madeConfigs(home), `clip-${wheel.sha256.slice(0, 8)}`)
  if (existsSync(folder)) return folder
  makeRoom(madeConfigs(home), 10e6)
  return whileHolding(madeConfigs(home), 'setup', async () => {
    if (existsSync(folder)) return folder
    say.line(`Fetching CLIP's vocabulary for models that are one file: 1.5 MB into ${shown(folder)}.`)
    await say.step('vocabulary of CLIP', async () => {
      for (const leftover of readdirSync(madeConfigs(home)).filter((name) => name.startsWith('.part-')))
        rmSync(join(madeConfigs(home), leftover), { recursive: true })
      const part = mkdtempSync(join(madeConfigs(home), '.part-'))
      const made = join(part, 'set')
      cpSync(join(root, 'python', 'darkroom', 'configs', 'clip'), made, { recursive: true })
      const vocabulary = vocabularyOf(readFileSync(await takeOut(wheel, part, python, refused)))
      for (const name of readdirSync(made).filter((each) => each.startsWith('tokenizer')))
        for (const [file, text] of Object.entries(vocabulary)) writeFileSync(join(made, name, file), text)
      renameSync(made, folder)
      rmSync(part, { recursive: true })
    })
    return folder
  })
}

/**
 * `merges.txt` and `vocab.json` as CLIP's tokenizer reads them.
 * @param {Buffer} compressed OpenCLIP's file: a title and more merges than CLIP has, one a line
 * @returns {Record<'merges.txt' | 'vocab.json', string>}
 * @throws SetupFailure when they are others than the published ones
 */
export function vocabularyOf(compressed) {
  const lines = gunzipSync(compressed, { maxOutputLength: 16e6 })
    .toString('utf8')
    .split('\n')
    .slice(1, merges + 1)
  const text = `#version: 0.2\n${lines.join('\n')}\n`
  const sha256 = createHash('sha256').update(text).digest('hex')
  if (sha256 !== mergesSha256) throw refused(`its merges are not the published ones (SHA-256 ${sha256}, expected ${mergesSha256})`)
  return { 'merges.txt': text, 'vocab.json': JSON.stringify(Object.fromEntries(wordsOf(lines).map((word, i) => [word, i]))) }
}

/**
 * The words that these merges make, in the order of their ids: letters, letters at the end of a word, merges, marks.
 * @param {readonly string[]} lines
 */
export const wordsOf = (lines) => [
  ...letters(),
  ...letters().map((letter) => `${letter}</w>`),
  ...lines.map((line) => line.replace(' ', '')),
  '<|startoftext|>',
  '<|endoftext|>',
]

/** A letter for each byte: those that can be shown stand for themselves, the others follow from code point 256 on. */
function letters() {
  const shownBytes = [...range(0x21, 0x7e), ...range(0xa1, 0xac), ...range(0xae, 0xff)]
  const others = range(0, 255).filter((byte) => !shownBytes.includes(byte))
  return [...shownBytes, ...others.map((_, i) => 256 + i)].map((point) => String.fromCodePoint(point))
}

/** @param {number} from @param {number} to */
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

/** @param {string} why */
const refused = (why) => failure(`CLIP's vocabulary is not there: ${why}`)
