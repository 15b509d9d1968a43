/**
 * Every command that a Redis executes, by MONITOR: shows what crosses the slots of a cluster, also inside scripts,
 * where one node says nothing.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

interface Seen {
  source: string
  args: string[]
}

export class Monitor {
  readonly #seen: Seen[] = []
  readonly #socket: Socket

  constructor(redisUrl: string) {
    this.#socket = connect(redisUrl.slice('unix:'.length))
    this.#socket.write('MONITOR\r\n')
    createInterface(this.#socket).on('line', (line) => {
      const [, source = '', command = ''] = /^\+\S+ \[\d+ ([^\]]+)\] (.*)$/.exec(line) ?? []
      const args = [...command.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text]) => text ?? '')
      if (args.length > 0) this.#seen.push({ source, args })
    })
  }

  /**
   * Scripts that ran, hash tags that were met, and each command, script or transaction that named keys of more than one
   * tag.
   */
  report(): { scripts: number; tags: Set<string>; crossings: string[] } {
    const tagsOf = (args: string[]): string[] => args.flatMap((arg) => /^darkroom:(\{[^}]+\})/.exec(arg)?.[1] ?? [])
    const crossings: string[] = []
    let scripts = 0
    let script: { text: string; tags: Set<string> } | undefined
    const transactions = new Map<string, Set<string>>()
    for (const { source, args } of this.#seen) {
      const [name = '', ...rest] = args
      const command = name.toLowerCase()
      const text = `${command} ${rest.join(' ').slice(0, 200)}`
      if (source === 'lua' && script && command !== 'publish') {
        for (const tag of tagsOf(rest)) script.tags.add(tag)
        if (script.tags.size > 1) crossings.push(`${script.text}: ${text}`)
        continue
      }
      if (source === 'lua') continue
      const isScript = /^eval(sha)?$/.test(command)
      // MGET, DEL and the like: one slot each. Channels have no slot.
      const named = isScript ? rest.slice(2, 2 + Number(rest[1])) : rest.filter((arg) => !arg.includes(':events:'))
      const tags = new Set(tagsOf(named))
      if (tags.size > 1 && !/subscribe|publish/.test(command)) crossings.push(text)
      if (isScript) scripts++
      script = isScript ? { text: rest.slice(0, 4).join(' ').slice(0, 120), tags } : undefined
      if (command === 'multi') transactions.set(source, new Set())
      const transaction = transactions.get(source)
      if (command === 'exec') transactions.delete(source)
      else for (const tag of tags) transaction?.add(tag)
      if (transaction && transaction.size > 1) crossings.push(`in a transaction: ${text}`)
    }
    return { scripts, tags: new Set(this.#seen.flatMap(({ args }) => tagsOf(args))), crossings }
  }

  async close(): Promise<void> {
    const closed = once(this.#socket, 'close')
    this.#socket.destroy()
    await closed
  }
}
