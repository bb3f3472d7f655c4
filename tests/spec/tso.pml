/* x86-TSO: each thread stores into a first-in first-out buffer of two entries, reads its own buffer first, and the
 * Memory process commits the oldest store of any thread at any time. A fence, a locked instruction and a system call
 * wait until the thread's own buffer is empty. A model defines WORDS (shared words) and THREADS (those that store
 * plainly) before it includes this file. A thread without plain stores needs no buffer: it reads mem[] itself. */
typedef Buffer {
  byte used;
  byte word[2];
  byte value[2]
};
byte mem[WORDS];
Buffer buffer[THREADS];

inline Store(thread, to, what) {
  atomic {
    buffer[thread].used < 2;
    buffer[thread].word[buffer[thread].used] = to;
    buffer[thread].value[buffer[thread].used] = what;
    buffer[thread].used++
  }
}

#define DRAINED(thread) (buffer[thread].used == 0)
#define Fence(thread) DRAINED(thread)
#define LOAD(thread, from) \
  (buffer[thread].used == 2 && buffer[thread].word[1] == from -> buffer[thread].value[1] : \
   (buffer[thread].used >= 1 && buffer[thread].word[0] == from -> buffer[thread].value[0] : mem[from]))

proctype Memory(byte thread) {
end:
  do
  :: atomic {
       buffer[thread].used > 0 ->
       mem[buffer[thread].word[0]] = buffer[thread].value[0];
       buffer[thread].word[0] = buffer[thread].word[1];
       buffer[thread].value[0] = buffer[thread].value[1];
       buffer[thread].word[1] = 0;
       buffer[thread].value[1] = 0;
       buffer[thread].used--;
       if
       :: buffer[thread].used == 0 -> buffer[thread].word[0] = 0; buffer[thread].value[0] = 0
       :: else
       fi
     }
  od
}
