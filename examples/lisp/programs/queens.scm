; SPDX-License-Identifier: MIT
; queens.scm [-- MOST]: in how many ways can n queens stand on a board of n x n without attacking each other? For n from
; 4 to MOST, 8 if it is not given, with the first solution that is found: the queen's column in each row.

(define (attacks? column placed)
  (let loop ((distance 1) (placed placed))
    (cond ((null? placed) #f)
          ((= (car placed) column) #t)
          ((= (car placed) (- column distance)) #t)
          ((= (car placed) (+ column distance)) #t)
          (else (loop (+ distance 1) (cdr placed))))))

(define (range from to)
  (if (> from to) '() (cons from (range (+ from 1) to))))

; All solutions that begin with the queens that are placed, the last row first.
(define (solutions n rows placed)
  (if (= rows n)
      (list (reverse placed))
      (fold append '()
            (map (lambda (column) (solutions n (+ rows 1) (cons column placed)))
                 (filter (lambda (column) (not (attacks? column placed)))
                         (range 1 n))))))

(define (run n most)
  (when (<= n most)
    (let ((found (solutions n 0 '())))
      (print n " queens: " (length found) " solutions, the first is " (car found)))
    (run (+ n 1) most)))

(run 4 (if (pair? (arguments)) (string->number (car (arguments))) 8))
