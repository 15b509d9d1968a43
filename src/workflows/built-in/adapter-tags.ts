/**
 * Adapters that stand in a prompt, as AUTOMATIC1111's web UI writes them (`modules/extra_networks.py`, and
 * `extensions-builtin/Lora/extra_networks_lora.py`): `<lora:name>`, `<lora:name:0.8>`, `<lora:name:0.5:0.8>` with the
 * text encoders' weight before the network's, `<lora:name:te=0.5:unet=0.8>`; `lyco` says the same. Pure.
 */
import { cut } from '../../errors.ts'

/** One adapter of a prompt. */
export interface Tag {
  name: string
  weight: number
  textWeight?: number
}

const tag = /<(\w+):([^>]+)>/g
const named = /^(te|unet|dyn)=(.*)$/

/** The prompt without its tags, what they say, and what is wrong with those that say nothing. */
export function readTags(prompt: string): { text: string; tags: Tag[]; problems: string[] } {
  const tags: Tag[] = []
  const problems: string[] = []
  const text = prompt.replaceAll(tag, (whole: string, kind: string, said: string) => {
    const read = kind === 'lora' || kind === 'lyco' ? readTag(said) : `is none that is heard: only <lora:name:weight> is`
    if (typeof read === 'string') problems.push(`${cut(whole, 80)} ${read}`)
    else tags.push(read)
    return ''
  })
  return { text: tags.length > 0 ? text.trim() : text, tags, problems }
}

function readTag(said: string): Tag | string {
  const [name = '', ...more] = said.split(':').map((part) => part.trim())
  const by = Object.fromEntries(
    more.flatMap((part) => (named.exec(part) ? [[named.exec(part)?.[1] ?? '', named.exec(part)?.[2] ?? '']] : [])),
  )
  const [first, second, ...rest] = more.filter((part) => !named.test(part))
  if (by['dyn'] !== undefined || rest.length > 0) return 'asks for a rank of its own, which is not done: leave that number out'
  const text = numberOf(by['te'] ?? first ?? '1')
  const network = numberOf(by['unet'] ?? second ?? by['te'] ?? first ?? '1')
  if (name === '') return 'names no adapter'
  if (Number.isNaN(text) || Number.isNaN(network)) return 'has a weight that is no number'
  return { name, weight: network, ...(text !== network && { textWeight: text }) }
}

const numberOf = (text: string): number => (/^[+-]?(?:\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : NaN)
