// What an access costs a simulation: time of one thread, in ns, of a memory behind registers.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include "Vdut.h"
#include "layout.hpp"

static Vdut dut;

static void step() {
  dut.clk = 1;
  dut.eval();
  dut.clk = 0;
  dut.eval();
}

static double now() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void put(uint32_t* words, int offset, int width, uint64_t value) {
  for (int i = 0; i < width; i++) {
    uint32_t bit = 1u << ((offset + i) % 32);
    if (value >> i & 1) words[(offset + i) / 32] |= bit;
  }
}

int main(int, char** argv) {
  const char* names[] = {"reads", "whole writes", "writes of parts", "hits", "misses"};
  const long count = atol(argv[1]);
  static uint32_t payloads[5][64][24];
  for (int kind = 0; kind < KINDS; kind++)
    for (int n = 0; n < 64; n++) {
      uint32_t* words = payloads[kind][n];
      bool cached = kind > 2, write = kind == 1 || kind == 2;
      put(words, LINE, 34, kind == 4 ? n * 512 : cached ? n : n * 61 % 4096);
      if (cached) put(words, CACHED, 1, 1);
      put(words, WRITE, 1, write);
      for (int k = 0; write && k < 8; k++) put(words, DATA + 64 * k, 64, (n + k) * 0x9e3779b97f4a7c15);
      if (write) put(words, MASK, 64, kind == 1 ? ~0ull : 0x00f0f00f0ff00ff0ull);
    }
  dut.rst = 1;
  step();
  dut.rst = 0;
  step();
  double began = now();
  for (long n = 0; n < count; n++) step();
  printf("idle %.0f\n", (now() - began) / count);
  for (int kind = 0; kind < KINDS; kind++) {
    dut.ways = kind > 2 ? 4 : 0;
    for (int n = 0; n < 4000; n++) step();
    began = now();
    dut.REQUEST_VALID = 1;
    for (long got = 0; got < count;) {
      std::copy_n(payloads[kind][got % 64], sizeof(dut.REQUEST_PAYLOAD) / 4, &dut.REQUEST_PAYLOAD[0]);
      dut.eval();
      got += dut.REQUEST_READY;
      step();
    }
    dut.REQUEST_VALID = 0;
    printf("%s %.0f\n", names[kind], (now() - began) / count);
    for (int n = 0; n < 8; n++) step();
  }
}
