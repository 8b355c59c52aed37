 cycle  because           pause, us  live, KiB  heap, KiB
     1  goal reached            904         92       4584
     2  goal reached            429        103       4616
     3  goal reached            221        117       4616
3 cycles, 1.6 ms of pauses, the longest 904 us; 13.5 MiB allocated
