/** Keeps the models that are made of files as what is on the host has it: after each look at the folders. */
import { join } from 'node:path'
import { besideOf, compose, isMadeHere, stockOf } from './composing.ts'
import { composeControl, isControlMadeHere } from './composing-controls.ts'
import { readConfigSet, readConfigSets } from './configs.ts'
import { asksMore, drawnFamily, readDrawing } from './drawing.ts'
import type { Entry } from './entry.ts'
import { looker } from './look.ts'
import type { Made } from './made.ts'

export class Composer {
  readonly #configs: readonly string[]

  /** `configs`: folders of sets of configurations. */
  constructor(configs: readonly string[]) {
    this.#configs = configs
  }

  /** Puts into `entries` what has changed of models that are made here, and returns it. */
  async compose(entries: Map<string, Entry>): Promise<Entry[]> {
    return [...(await this.#composeControls(entries)), ...(await this.#composeModels(entries))]
  }

  async #composeControls(entries: Map<string, Entry>): Promise<Entry[]> {
    const changed: Entry[] = []
    const look = looker()
    for (const entry of [...entries.values()].filter(isControlMadeHere)) {
      const made = await look(entry.path, () => composeControl(entry, this.#configs)).catch(() => null)
      if (sameMade(entry.made ?? null, made)) continue
      const next: Entry = { ...entry, made, identity: null, unhashable: null }
      entries.set(entry.path, next)
      changed.push(next)
    }
    return changed
  }

  async #composeModels(entries: Map<string, Entry>): Promise<Entry[]> {
    const wanted = [...entries.values()].filter((entry) => isMadeHere(entry) && drawnFamily(entry.verdict) && !asksMore(entry.verdict))
    if (wanted.length === 0) return []
    const stock = stockOf(entries.values(), await readConfigSets(this.#configs))
    const look = looker()
    const changed: Entry[] = []
    for (const entry of wanted) {
      const place = besideOf(entry.path)
      const beside = await look(place, () => readConfigSet(place)).catch(() => undefined)
      const composition = compose(entry, stock, beside)
      const made = 'made' in composition ? composition.made : null
      const lacking = 'lacks' in composition ? obstacleOf(composition.lacks) : null
      const isSame = sameMade(entry.made ?? null, made)
      if (isSame && (made ? entry.drawing !== null : entry.obstacle === lacking)) continue
      const drawable = 'made' in composition ? await drawn(entry, composition.made, composition.home.path) : undefined
      const next: Entry = {
        ...entry,
        made,
        drawing: drawable?.drawing ?? null,
        obstacle: lacking ?? drawable?.obstacle ?? null,
        ...(!isSame && { identity: null, unhashable: null }),
      }
      entries.set(entry.path, next)
      changed.push(next)
    }
    return changed
  }
}

const sameMade = (a: Made | null, b: Made | null): boolean => JSON.stringify(a) === JSON.stringify(b)

/** `home`: the folder whose manifest recommends settings. */
function drawn(entry: Entry, made: Made, home: string): ReturnType<typeof readDrawing> {
  return readDrawing(entry.path, entry.verdict, (file) => {
    const [part = '', name] = file.split('/')
    const folder = made.parts.find((each) => each.name === part)?.folder
    return name === undefined ? join(home, file) : join(folder ?? join(home, part), name)
  })
}

function obstacleOf(lacks: readonly string[]): string {
  const isVocabulary = lacks.some((lack) => /vocabulary|configuration|scheduler/.test(lack))
  const how = isVocabulary
    ? '; import it with `darkroom models import-config FOLDER` from a diffusers folder of that family'
    : '; put the file into a model folder'
  return `it lacks ${lacks.join(' and ')}${how}`
}
