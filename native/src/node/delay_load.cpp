/**
 * On Windows the addon imports from "node.exe", whatever the running program is called (Electron, a renamed node): the delay loader asks
 * here first, and is given the running program.
 */
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <delayimp.h>
#include <cstring>

static FARPROC WINAPI resolve(unsigned event, PDelayLoadInfo info) {
  if (event != dliNotePreLoadLibrary || _stricmp(info->szDll, "node.exe") != 0) return nullptr;
  return reinterpret_cast<FARPROC>(GetModuleHandleA(nullptr));
}

extern "C" {
PfnDliHook __pfnDliNotifyHook2 = resolve;
}
#endif
