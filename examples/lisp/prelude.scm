; SPDX-License-Identifier: MIT
; What the machine need not know of: forms that can be made of others, lists, and whatever calls a function.

(define (list . x) x)
(define (cadr x) (car (cdr x)))
(define (cddr x) (cdr (cdr x)))
(define (caddr x) (car (cddr x)))

(define (map f x)
  (if (pair? x)
      (cons (f (car x)) (map f (cdr x)))
      '()))

; --- forms ---

(define-macro (when test . body) (list 'if test (cons 'begin body)))
(define-macro (unless test . body) (list 'if test '(begin) (cons 'begin body)))

; With a name it is a loop: a function of that name, and a call of it.
(define-macro (let names . body)
  (if (symbol? names)
      (list 'let '()
            (cons 'define (cons (cons names (map car (car body))) (cdr body)))
            (cons names (map cadr (car body))))
      (cons (cons 'lambda (cons (map car names) body))
            (map cadr names))))

(define-macro (let* names . body)
  (if (pair? names)
      (list 'let (list (car names)) (cons 'let* (cons (cdr names) body)))
      (cons 'let (cons '() body))))

(define-macro (letrec names . body)
  (cons 'let (cons '() (cons (cons 'begin (map (lambda (x) (cons 'define x)) names)) body))))

(define-macro (and . tests)
  (if (pair? tests)
      (if (pair? (cdr tests))
          (list 'if (car tests) (cons 'and (cdr tests)) #f)
          (car tests))
      #t))

(define-macro (or . tests)
  (if (pair? tests)
      (if (pair? (cdr tests))
          (list 'let (list (list 'or.first (car tests)))
                (list 'if 'or.first 'or.first (cons 'or (cdr tests))))
          (car tests))
      #f))

(define-macro (cond . clauses)
  (if (pair? clauses)
      (let ((test (car (car clauses))) (body (cdr (car clauses))))
        (if (eq? test 'else)
            (cons 'begin body)
            (if (pair? body)
                (list 'if test (cons 'begin body) (cons 'cond (cdr clauses)))
                (list 'or test (cons 'cond (cdr clauses))))))
      '(begin)))

; --- lists ---

(define (length x)
  (let loop ((x x) (n 0))
    (if (null? x) n (loop (cdr x) (+ n 1)))))

(define (for-each f x)
  (when (pair? x)
    (f (car x))
    (for-each f (cdr x))))

(define (fold f so-far x)
  (if (pair? x) (fold f (f so-far (car x)) (cdr x)) so-far))

(define (reverse x) (fold (lambda (done first) (cons first done)) '() x))

(define (append . lists)
  (define (before x y)
    (if (pair? x) (cons (car x) (before (cdr x) y)) y))
  (if (pair? lists)
      (if (pair? (cdr lists))
          (before (car lists) (apply append (cdr lists)))
          (car lists))
      '()))

(define (filter keep? x)
  (cond ((null? x) '())
        ((keep? (car x)) (cons (car x) (filter keep? (cdr x))))
        (else (filter keep? (cdr x)))))

(define (memq x list)
  (cond ((null? list) #f)
        ((eq? x (car list)) list)
        (else (memq x (cdr list)))))

(define (assoc x list)
  (cond ((null? list) #f)
        ((equal? x (car (car list))) (car list))
        (else (assoc x (cdr list)))))

(define (equal? x y)
  (cond ((eq? x y) #t)
        ((pair? x) (and (pair? y) (equal? (car x) (car y)) (equal? (cdr x) (cdr y))))
        ((string? x) (and (string? y) (string=? x y)))
        ((vector? x) (and (vector? y) (equal? (vector->list x) (vector->list y))))
        (else #f)))

; --- vectors, strings, output ---

(define (vector->list x)
  (let loop ((i (- (vector-length x) 1)) (list '()))
    (if (< i 0) list (loop (- i 1) (cons (vector-ref x i) list)))))

(define (list->vector x)
  (let ((result (make-vector (length x) 0)))
    (let loop ((i 0) (x x))
      (cond ((null? x) result)
            (else (vector-set! result i (car x))
                  (loop (+ i 1) (cdr x)))))))

(define (vector . x) (list->vector x))

(define (string->list x)
  (let loop ((i (- (string-length x) 1)) (list '()))
    (if (< i 0) list (loop (- i 1) (cons (string-ref x i) list)))))

(define (number->string n)
  (let loop ((n n) (digits '()))
    (cond ((< n 0) (string-append "-" (loop (- n) digits)))
          ((< n 10) (list->string (cons (integer->char (+ 48 n)) digits)))
          (else (loop (quotient n 10) (cons (integer->char (+ 48 (remainder n 10))) digits))))))

(define (display x) (print-value x #f))
(define (write x) (print-value x #t))
(define (newline) (display-atom "\n"))

(define (print . parts)
  (for-each display parts)
  (newline))

(define (print-value x quoted)
  (cond ((pair? x) (display-atom "(") (print-list x quoted))
        ((vector? x) (display-atom "#") (print-value (vector->list x) quoted))
        ((and quoted (char? x)) (display-atom "#\\") (display-atom x))
        ((and quoted (string? x))
         (display-atom "\"")
         (for-each print-escaped (string->list x))
         (display-atom "\""))
        (else (display-atom x))))

(define (print-list x quoted)
  (print-value (car x) quoted)
  (cond ((null? (cdr x)) (display-atom ")"))
        ((pair? (cdr x)) (display-atom " ") (print-list (cdr x) quoted))
        (else (display-atom " . ") (print-value (cdr x) quoted) (display-atom ")"))))

(define (print-escaped c)
  (let ((escape (assq c '((#\" . "\\\"") (#\\ . "\\\\") (#\newline . "\\n") (#\tab . "\\t") (#\return . "\\r")))))
    (display-atom (if escape (cdr escape) c))))
