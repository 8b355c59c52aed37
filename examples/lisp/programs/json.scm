; SPDX-License-Identifier: MIT
; json.scm -- FILE: reads JSON (RFC 8259), says how much of what is in it, and writes it anew, indented by 2.
;
; Here an object is (object (key . value) ...), an array (array value ...), a string a string, true and false #t and #f,
; null the symbol, and a number (number . text), since there are numbers that the Lisp doesn't have.

(define text "")
(define at 0)

(define (look) (if (< at (string-length text)) (string-ref text at) #f))
(define (take) (let ((c (look))) (set! at (+ at 1)) c))
(define (wrong what) (error (string-append "not JSON, " what ", at byte") at))
(define (code c) (char->integer c))
(define (between? low c high) (and c (<= (code low) (code c) (code high))))

(define (expect c)
  (unless (eq? (take) c) (wrong "something is missing")))

(define (skip-space)
  (when (memq (look) '(#\space #\newline #\tab #\return))
    (take)
    (skip-space)))

; --- reading ---

(define (read-word word value)
  (for-each expect (string->list word))
  value)

(define (read-number)
  (let ((start at))
    (let loop ()
      (when (or (between? #\0 (look) #\9) (memq (look) '(#\- #\+ #\. #\e #\E)))
        (take)
        (loop)))
    (when (= at start) (wrong "no value"))
    (cons 'number (substring text start at))))

(define (hex-digit c)
  (cond ((between? #\0 c #\9) (- (code c) 48))
        ((between? #\a c #\f) (- (code c) 87))
        ((between? #\A c #\F) (- (code c) 55))
        (else (wrong "no digit"))))

(define (read-hex)
  (fold (lambda (n i) (+ (* 16 n) (hex-digit (take)))) 0 '(1 2 3 4)))

; What is beyond the first 65536 characters comes as two halves.
(define (read-unicode)
  (let ((n (read-hex)))
    (cond ((<= 55296 n 56319)
           (expect #\\)
           (expect #\u)
           (+ 65536 (* 1024 (- n 55296)) (- (read-hex) 56320)))
          (else n))))

; The bytes of a character in UTF-8 before those of the list, whose last is first.
(define (add-utf8 n bytes)
  (define (low n) (integer->char (+ 128 (remainder n 64))))
  (define (high base n) (integer->char (+ base n)))
  (cond ((< n 128) (cons (integer->char n) bytes))
        ((< n 2048) (cons (low n) (cons (high 192 (quotient n 64)) bytes)))
        ((< n 65536)
         (cons (low n) (cons (low (quotient n 64)) (cons (high 224 (quotient n 4096)) bytes))))
        (else
         (cons (low n)
               (cons (low (quotient n 64))
                     (cons (low (quotient n 4096)) (cons (high 240 (quotient n 262144)) bytes)))))))

(define escapes '((#\" . 34) (#\\ . 92) (#\/ . 47) (#\b . 8) (#\f . 12) (#\n . 10) (#\r . 13) (#\t . 9)))

(define (read-string)
  (expect #\")
  (let loop ((bytes '()))
    (let ((c (take)))
      (cond ((not c) (wrong "a string has no end"))
            ((eq? c #\") (list->string (reverse bytes)))
            ((not (eq? c #\\)) (loop (cons c bytes)))
            ((eq? (look) #\u) (take) (loop (add-utf8 (read-unicode) bytes)))
            (else
             (let ((escape (assq (take) escapes)))
               (unless escape (wrong "an unknown escape"))
               (loop (add-utf8 (cdr escape) bytes))))))))

; Members up to the closing bracket, which `read-one` reads.
(define (read-members close read-one)
  (take)
  (skip-space)
  (cond ((eq? (look) close) (take) '())
        (else
         (let loop ((members (list (read-one))))
           (skip-space)
           (cond ((eq? (look) close) (take) (reverse members))
                 (else (expect #\,) (loop (cons (read-one) members))))))))

(define (read-pair)
  (skip-space)
  (let ((key (read-string)))
    (skip-space)
    (expect #\:)
    (cons key (read-value))))

(define (read-value)
  (skip-space)
  (let ((c (look)))
    (cond ((eq? c #\{) (cons 'object (read-members #\} read-pair)))
          ((eq? c #\[) (cons 'array (read-members #\] read-value)))
          ((eq? c #\") (read-string))
          ((eq? c #\t) (read-word "true" #t))
          ((eq? c #\f) (read-word "false" #f))
          ((eq? c #\n) (read-word "null" 'null))
          (else (read-number)))))

; --- how much of what ---

(define (kind x)
  (cond ((pair? x) (car x)) ((string? x) 'string) ((eq? x 'null) 'null) (else 'boolean)))

(define (parts x)
  (let ((kind (kind x)))
    (cond ((eq? kind 'object) (map cdr (cdr x))) ((eq? kind 'array) (cdr x)) (else '()))))

(define (count which x)
  (fold (lambda (n part) (+ n (count which part))) (if (eq? (kind x) which) 1 0) (parts x)))

(define (depth x)
  (+ 1 (fold (lambda (n part) (let ((m (depth part))) (if (< n m) m n))) 0 (parts x))))

; --- writing ---

(define (write-string x)
  (define (write-hex n) (display (substring "0123456789abcdef" n (+ n 1))))
  (define (write-char c)
    (let ((n (code c)))
      (cond ((= n 34) (display "\\\""))
            ((= n 92) (display "\\\\"))
            ((= n 8) (display "\\b"))
            ((= n 12) (display "\\f"))
            ((= n 10) (display "\\n"))
            ((= n 13) (display "\\r"))
            ((= n 9) (display "\\t"))
            ((< n 32) (display "\\u00") (write-hex (quotient n 16)) (write-hex (remainder n 16)))
            (else (display c)))))
  (display #\")
  (for-each write-char (string->list x))
  (display #\"))

(define (write-members open members write-one close indent)
  (display open)
  (let loop ((members members) (between "\n"))
    (when (pair? members)
      (display between)
      (display (string-append indent "  "))
      (write-one (car members))
      (loop (cdr members) ",\n")))
  (when (pair? members)
    (newline)
    (display indent))
  (display close))

(define (write-value x indent)
  (define inner (string-append indent "  "))
  (define (write-pair x)
    (write-string (car x))
    (display ": ")
    (write-value (cdr x) inner))
  (let ((kind (kind x)))
    (cond ((eq? kind 'object) (write-members "{" (cdr x) write-pair "}" indent))
          ((eq? kind 'array) (write-members "[" (cdr x) (lambda (x) (write-value x inner)) "]" indent))
          ((eq? kind 'string) (write-string x))
          ((eq? kind 'number) (display (cdr x)))
          ((eq? kind 'null) (display "null"))
          (else (display (if x "true" "false"))))))

(set! text (read-file (car (arguments))))
(let ((x (read-value)))
  (skip-space)
  (when (look) (wrong "something comes behind it"))
  (for-each (lambda (which) (print which ": " (count which x)))
            '(object array string number boolean null))
  (print "depth: " (depth x))
  (write-value x "")
  (newline))
