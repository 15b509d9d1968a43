/** What a figure was measured on. */
import { cpus, loadavg, release, totalmem, type } from 'node:os'
import { readConfig } from '../src/config.ts'
import { findRedis } from '../host/places.mjs'

export interface Machine {
  cpu: string
  cores: number
  memoryGB: number
  os: string
  node: string
  redis: string
  durability: string
  /** ISO 8601. */
  date: string
  /** Over the last 1, 5 and 15 minutes when the run began. */
  loadAverage: number[]
}

export async function describeMachine(): Promise<Machine> {
  const redis = await findRedis(readConfig().home)
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 2 ** 30),
    os: `${type()} ${release()}`,
    node: process.versions.node,
    redis: redis?.version ?? 'none',
    durability: 'standard (append-only file, synced every second), Unix socket',
    date: new Date().toISOString(),
    loadAverage: loadavg().map((load) => Math.round(load * 100) / 100),
  }
}

/** Whether others kept the machine busy: more than a quarter of its cores over the last minute. */
export const isBusy = ({ loadAverage, cores }: Machine): boolean => (loadAverage[0] ?? 0) > cores / 4
