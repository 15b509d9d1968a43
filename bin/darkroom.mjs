#!/usr/bin/env node
/** The `darkroom` command: runs src/main.ts from wherever it is called, through a link too. */
import { register } from 'tsx/esm/api'

register()
await import('../src/main.ts')
