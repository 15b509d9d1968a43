/** A real Redis for one test file, durable as the product's own: on a Unix socket, in a folder of its own. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../../src/config.ts'
import { startRedis, type RedisOptions, type RedisServer } from '../../src/redis-server.ts'

export interface TestRedis {
  /** `unix:/path`; the same after `restart`. */
  readonly url: string
  readonly folder: string
  readonly pid: number
  /** SIGKILL, as a crash would end it; resolves when it is gone. */
  kill(): Promise<void>
  /** SIGSTOP until the returned function is called. */
  freeze(): () => void
  /** Starts it again on the same files after `kill`. */
  restart(): Promise<void>
  /** Ends it and removes its files. */
  stop(): Promise<void>
}

export async function startTestRedis(options: Partial<Omit<RedisOptions, 'folder'>> = {}): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-redis-'))
  const start = (): Promise<RedisServer> => startRedis({ durability: 'standard', home: readConfig().home, ...options, folder })
  let server = await start()
  const killHard = (): boolean => process.kill(server.pid, 'SIGKILL')
  // A test run that is cut short leaves no Redis behind.
  process.once('exit', stopOnExit)
  function stopOnExit(): void {
    try {
      killHard()
    } catch {
      // It is gone already.
    }
  }
  return {
    url: server.url,
    folder,
    get pid() {
      return server.pid
    },
    kill: async () => {
      killHard()
      await server.exited
    },
    freeze: () => {
      process.kill(server.pid, 'SIGSTOP')
      return () => void process.kill(server.pid, 'SIGCONT')
    },
    restart: async () => {
      server = await start()
    },
    stop: async () => {
      process.off('exit', stopOnExit)
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
